// The least that a durable publish over TLS can cost on this machine: a server of one thread that reads a message,
// writes it behind the one before in a file that is allocated whole, syncs and answers; nothing else. What is faster
// than 1.5 times a peer must be faster than this, or it cannot be reached here.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bench/bench.h"
#include "bench/cluster.h"
#include "bench/message_load.h"
#include "bench/process.h"

namespace uccp::bench {

class SyncFloor {
 public:
  // With the certificates of a cluster, and its file on the same disk. Errors: unavailable BENCH_FAILED.
  static Result<std::unique_ptr<SyncFloor>> start(const Context& context, const UccpCluster& pki);
  // As publishers do.
  LoadResult run(size_t bytes, const Plan& plan);
  int pid() const { return server_.pid(); }

 private:
  SyncFloor(Child server, std::unique_ptr<MessageLoad> load) : server_(std::move(server)), load_(std::move(load)) {}
  Child server_;
  std::unique_ptr<MessageLoad> load_;
};

// `write` and `fdatasync` of so many bytes a second, one after the other, in a file of the benchmark's directory.
double syncs_per_second(const Context& context, size_t bytes, double seconds);

// The hidden command behind it: KEYS FILE PORT_FILE. Returns the exit code.
int sync_server_main(const std::vector<std::string>& arguments);

}  // namespace uccp::bench
