// The health documents of a node, from the state of its groups and its disk.
#pragma once

#include <atomic>
#include <functional>

#include "doors/rest/health.h"
#include "node/node.h"
#include "services/admin/health_registry.h"

namespace uccp::server {

class NodeHealth final : public doors::HealthSource {
 public:
  NodeHealth(const node::Node& node, std::string node_name, std::function<uint64_t()> log_bytes);

  void set_started() { started_.store(true); }
  void set_stopping() { stopping_.store(true); }
  bool ready() const { return registry_.report().ready; }
  // The parts of the node, for GetHealth.
  const admin::HealthRegistry& registry() const { return registry_; }
  doors::HealthReport report(std::string_view path) override;

 private:
  std::string raft_json() const;

  const node::Node& node_;
  const std::string node_name_;
  std::function<uint64_t()> log_bytes_;
  std::atomic<bool> started_{false};
  std::atomic<bool> stopping_{false};
  admin::HealthRegistry registry_;
};

}  // namespace uccp::server
