// MetricsDoor: /metrics in the Prometheus text format and the public health paths, over plain HTTP. Nothing else: it
// has no credentials, so it listens on loopback unless told otherwise.
#pragma once

#include <cstdint>
#include <memory>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/status.h"
#include "doors/rest/health.h"
#include "doors/rest/http_server.h"

namespace uccp::doors {

struct MetricsDoorOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 0;  // 0: any free one
  size_t connections_max = 256;
};

class MetricsDoor {
 public:
  MetricsDoor();
  ~MetricsDoor();
  MetricsDoor(const MetricsDoor&) = delete;
  MetricsDoor& operator=(const MetricsDoor&) = delete;

  // Opens the port and answers which. The arguments must outlive the door.
  Result<uint16_t> start(const MetricsDoorOptions& options, const Clock& clock, MetricsRegistry& metrics,
                         HealthSource& health);
  void stop();

 private:
  class Handler;
  std::unique_ptr<Handler> handler_;
  HttpServer server_;
};

}  // namespace uccp::doors
