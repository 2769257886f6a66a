// One server with other settings beside one with the defaults, under the same load.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bench/bench.h"
#include "bench/grpc_load.h"
#include "bench/process.h"

namespace uccp::bench {

struct Variant {
  const char* metric;
  std::vector<std::string> flags;
  double goal;  // of the rate with the defaults
};

// A server that is asked to store tasks, which nobody runs.
struct Side {
  std::unique_ptr<DevServer> server;
  std::unique_ptr<GrpcLoad> load;
  Work work;
  uint64_t next = 0;

  static Result<Side> start(const Context& context, std::vector<std::string> flags);
  LoadResult run(double seconds);
};

// Alternates both and emits the row.
Status measure_variant(Context& context, Side& plain, const Variant& variant);
// A new file with a master key for --encryption-key-file.
std::string write_master_key(const Context& context);

}  // namespace uccp::bench
