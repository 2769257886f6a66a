#include "server/health.h"

#include "base/json.h"

namespace uccp::server {
namespace {

doors::HealthReport answer(bool up, std::string_view status, std::string_view reason = {}) {
  JsonWriter json;
  json.begin_object().key("status").value(status);
  if (!reason.empty()) json.key("reason").value(reason);
  json.end_object();
  return {up ? 200 : 503, json.take()};
}

std::string_view word(v1::HealthStatus status) {
  switch (status) {
    case v1::HEALTH_STATUS_HEALTHY: return "UP";
    case v1::HEALTH_STATUS_DEGRADED: return "DEGRADED";
    default: return "DOWN";
  }
}

}  // namespace

NodeHealth::NodeHealth(const node::Node& node, std::string node_name, std::function<uint64_t()> log_bytes)
    : node_(node), node_name_(std::move(node_name)), log_bytes_(std::move(log_bytes)) {
  using State = admin::ComponentState;
  registry_.add("server", {}, [this]() -> State {
    if (stopping_.load()) return {v1::HEALTH_STATUS_UNHEALTHY, "the node is shutting down"};
    if (!started_.load()) return {v1::HEALTH_STATUS_UNHEALTHY, "the node is starting"};
    return {};
  });
  registry_.add("raft", {}, [this]() -> State {
    if (node_.ready()) return {};
    return {v1::HEALTH_STATUS_UNHEALTHY, "the state of some group is not current yet"};
  });
  registry_.add("storage", {.needed_to_be_ready = false}, [this]() -> State {
    if (!node_.out_of_space()) return {};
    return {v1::HEALTH_STATUS_DEGRADED, "the disk is nearly full: only changes that free space are taken"};
  });
  registry_.add("cache", {.needed_to_be_ready = false}, [] { return State{}; });
}

std::string NodeHealth::raft_json() const {
  JsonWriter json;
  json.begin_object().key("nodeId").value(node_name_).key("groups").begin_object();
  for (const auto& [id, status] : node_.status()) {
    const auto name_of = [](NodeId node) { return "n" + std::to_string(node.value); };
    json.key(status.name).begin_object();
    json.key("leader").value(status.group.leader ? name_of(status.group.leader) : "");
    json.key("role").value(raft::role_name(status.group.role));
    json.key("term").value(status.group.term.value);
    json.key("commitIndex").value(status.group.commit.value);
    json.key("appliedIndex").value(status.group.applied.value);
    json.key("lastIndex").value(status.group.last.value);
    json.key("digest").value(status.group.digest.to_string());
    json.key("members").begin_array();
    for (const NodeId member : status.group.membership.members()) json.value(name_of(member));
    json.end_array().end_object();
  }
  json.end_object().end_object();
  return json.take();
}

doors::HealthReport NodeHealth::report(std::string_view path) {
  const bool full = node_.out_of_space();
  if (path == "/health/live") return answer(true, "UP");
  if (path == "/health/startup") {
    return answer(started_.load(), started_.load() ? "UP" : "STARTING");
  }
  if (path == "/health/raft") return {ready() ? 200 : 503, raft_json()};
  if (path == "/health/cache") return answer(true, "UP", "embedded: no outside cache is configured");
  if (path == "/health/storage") {
    JsonWriter json;
    json.begin_object().key("status").value(full ? "DEGRADED" : "UP");
    json.key("outOfSpace").value(full).key("logBytes").value(log_bytes_());
    json.end_object();
    return {full ? 503 : 200, json.take()};
  }
  const admin::HealthRegistry::Report report = registry_.report();
  if (path != "/health/detailed") return answer(report.ready, word(report.status), report.reason);
  JsonWriter json;
  json.begin_object().key("status").value(word(report.status)).key("components").begin_object();
  for (const auto& component : report.components) {
    json.key(component.name).begin_object().key("status").value(word(component.state.status));
    if (!component.state.reason.empty()) json.key("reason").value(component.state.reason);
    json.end_object();
  }
  json.end_object().key("raft").raw(raft_json()).end_object();
  return {report.ready ? 200 : 503, json.take()};
}

}  // namespace uccp::server
