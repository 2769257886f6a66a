// GrpcLoad: unary calls as fast or as regular as wanted, over a few connections in the caller's thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "bench/load.h"

namespace uccp::bench {

class GrpcLoad {
 public:
  // Opens `connections` connections, to the targets in turn. Errors: unavailable CONNECT_FAILED.
  static Result<std::unique_ptr<GrpcLoad>> connect(const std::vector<std::string>& targets, const TlsIdentity& tls,
                                                   int connections = 4);
  static Result<std::unique_ptr<GrpcLoad>> connect(const std::string& target, const TlsIdentity& tls,
                                                   int connections = 4) {
    return connect(std::vector{target}, tls, connections);
  }
  virtual ~GrpcLoad() = default;
  // Blocks until all calls are answered. One run at a time.
  virtual LoadResult run(const Work& work, const Plan& plan) = 0;
};

}  // namespace uccp::bench
