// One ZooKeeper on loopback, and a client of its wire protocol that does nothing but set data: pipelined requests on
// plain TCP connections, in one thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bench/bench.h"
#include "bench/load.h"
#include "bench/process.h"

namespace uccp::bench {

// Debian's, with its defaults: it syncs its log before it answers.
class ZooKeeper {
 public:
  // Blocks until it answers. Errors: not_found ZOOKEEPER_MISSING if it is not installed; unavailable SERVER_NOT_READY.
  static Result<std::unique_ptr<ZooKeeper>> start(const Context& context);
  ~ZooKeeper();
  uint16_t port() const { return port_; }
  int pid() const { return child_->pid(); }
  const std::string& version() const { return version_; }

 private:
  std::string directory_, version_;
  uint16_t port_ = 0;
  std::optional<Child> child_;
};

class ZooKeeperLoad {
 public:
  // A session on each connection. Errors: unavailable BENCH_FAILED.
  static Result<std::unique_ptr<ZooKeeperLoad>> connect(uint16_t port, size_t connections);
  ~ZooKeeperLoad();

  // Creates nodes 0 to `nodes` with values of that size.
  Status create(size_t nodes, size_t value_bytes);
  // Sets the data of them in turn, `plan.in_flight` requests at work over all connections.
  LoadResult set(const Plan& plan, size_t nodes, size_t value_bytes);

 private:
  struct Connection;
  ZooKeeperLoad();
  // Sends what is waiting and takes what came; each answer with its error code. False: a connection is lost.
  template <typename Answered>
  bool turn(int wait_ms, Answered&& answered);

  std::vector<std::unique_ptr<Connection>> connections_;
};

}  // namespace uccp::bench
