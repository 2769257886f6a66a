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

}  // namespace

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
  const bool is_ready = ready();
  const bool full = node_.out_of_space();
  if (path == "/health/live") return answer(true, "UP");
  if (path == "/health/startup") {
    return answer(started_.load(), started_.load() ? "UP" : "STARTING");
  }
  if (path == "/health/raft") return {is_ready ? 200 : 503, raft_json()};
  if (path == "/health/cache") return answer(true, "UP", "embedded: no outside cache is configured");
  if (path == "/health/storage") {
    JsonWriter json;
    json.begin_object().key("status").value(full ? "DEGRADED" : "UP");
    json.key("outOfSpace").value(full).key("logBytes").value(log_bytes_());
    json.end_object();
    return {full ? 503 : 200, json.take()};
  }
  const std::string_view status = !is_ready ? "DOWN" : full ? "DEGRADED" : "UP";
  if (path == "/health/detailed") {
    JsonWriter json;
    json.begin_object().key("status").value(status).key("components").begin_object();
    json.key("raft").raw(raft_json());
    json.key("storage").begin_object().key("status").value(full ? "DEGRADED" : "UP").end_object();
    json.end_object().end_object();
    return {is_ready ? 200 : 503, json.take()};
  }
  const std::string_view reason = is_ready ? std::string_view()
                                  : stopping_.load() ? "the node is shutting down"
                                                     : "the node does not lead or follow all of its groups yet";
  return answer(is_ready, status, reason);
}

}  // namespace uccp::server
