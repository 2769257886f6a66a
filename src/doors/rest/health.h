// HealthSource: what the health paths answer. The server implements it from the state of the node.
#pragma once

#include <string>
#include <string_view>

namespace uccp::doors {

struct HealthReport {
  int http_status = 200;  // 200 or 503
  std::string json;
};

class HealthSource {
 public:
  virtual ~HealthSource() = default;
  // `path` is one of /health, /health/live, /health/ready, /health/startup, /health/detailed, /health/raft,
  // /health/storage and /health/cache. Callable from any thread; must not block.
  virtual HealthReport report(std::string_view path) = 0;
};

// The paths that anybody may ask: they say no more than up or down.
bool is_public_health_path(std::string_view path);
// Those that need a caller with the role viewer.
bool is_detailed_health_path(std::string_view path);

}  // namespace uccp::doors
