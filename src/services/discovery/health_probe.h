// How a check looks at an instance from outside: the port that the real prober implements.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "uccp/v1/discovery.pb.h"

namespace uccp::discovery {

struct ProbeTarget {
  v1::HealthCheckKind kind = v1::HEALTH_CHECK_KIND_UNSPECIFIED;
  std::string host;
  int32_t port = 0;
  std::string endpoint;  // path of HTTP, service of gRPC
  std::vector<std::pair<std::string, std::string>> headers;
  std::vector<int32_t> expected_codes;  // empty: 200 to 299
  bool tls_skip_verify = false;
  int64_t timeout_ms = 2000;
};

struct ProbeOutcome {
  bool passed = false;
  std::string reason;  // why it failed, in a few words
};

class HealthProbes {
 public:
  virtual ~HealthProbes() = default;
  // Callable from any thread. `done` comes exactly once, on any thread, soon after the timeout at the latest.
  virtual void probe(ProbeTarget target, std::move_only_function<void(ProbeOutcome)> done) = 0;
};

}  // namespace uccp::discovery
