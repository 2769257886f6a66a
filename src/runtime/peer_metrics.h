// What a PeerNetwork counts. docs/metrics.md
#pragma once

#include <string>

#include "base/metrics.h"

namespace uccp::runtime {

struct PeerMetrics {
  explicit PeerMetrics(MetricsRegistry& registry)
      : sent(registry.counter("uccp_peer_frames_sent_total", "Frames queued for peers.")),
        received(registry.counter("uccp_peer_frames_received_total", "Frames received from peers.")),
        dropped_unreachable(dropped(registry, "unreachable")),
        dropped_full(dropped(registry, "queue_full")),
        dropped_too_large(dropped(registry, "too_large")),
        rejected_identity(rejected(registry, "identity")),
        rejected_garbage(rejected(registry, "garbage")),
        rejected_limit(rejected(registry, "limit")) {}

  static Counter& dropped(MetricsRegistry& registry, const std::string& reason) {
    return registry.counter("uccp_peer_frames_dropped_total", "Frames that were not sent.", {{"reason", reason}});
  }
  static Counter& rejected(MetricsRegistry& registry, const std::string& reason) {
    return registry.counter("uccp_peer_connections_rejected_total",
                            "Connections that were closed for what the peer did.", {{"reason", reason}});
  }

  Counter& sent;
  Counter& received;
  Counter& dropped_unreachable;
  Counter& dropped_full;
  Counter& dropped_too_large;
  Counter& rejected_identity;
  Counter& rejected_garbage;
  Counter& rejected_limit;
};

}  // namespace uccp::runtime
