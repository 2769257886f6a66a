// GrpcLoad: unary calls as fast or as regular as wanted, over a few connections, with one completion queue.
#pragma once

#include <memory>
#include <string>

#include "base/status.h"
#include "bench/load.h"

namespace uccp::bench {

class GrpcLoad {
 public:
  // Connects. Errors: unavailable CONNECT_FAILED.
  static Result<std::unique_ptr<GrpcLoad>> connect(const std::string& target, const TlsIdentity& tls,
                                                   int connections = 4);
  virtual ~GrpcLoad() = default;
  // Blocks until all calls are answered.
  virtual LoadResult run(const Work& work, const Plan& plan) = 0;
};

}  // namespace uccp::bench
