#include "services/discovery/dependency_graph.h"

#include <algorithm>
#include <map>
#include <set>

#include "services/discovery/catalog.h"
#include "services/discovery/semver.h"

namespace uccp::discovery {
namespace {

struct Callee {
  std::string version;
  bool optional = true;  // every instance says so
};
struct Service {
  int32_t instances = 0, healthy = 0;
  std::set<std::string> healthy_versions;
  std::map<std::string, Callee> calls;  // by id of the callee
};
using Services = std::map<std::string, Service>;

std::string id_of(const std::string& name_space, const std::string& name, const Scope& scope) {
  return name_space.empty() || name_space == scope.name_space ? name : name_space + "/" + name;
}

// Counts the instances of services in other namespaces that are called.
void look_elsewhere(const machine::KeyReader& state, const Scope& scope, Services& services) {
  for (auto& [id, service] : services) {
    const size_t slash = id.find('/');
    if (slash == std::string::npos) continue;
    const Scope there{scope.tenant, id.substr(0, slash)};
    scan_services(state, there, id.substr(slash + 1), "", [&](std::string_view, std::string_view bytes) {
      ServiceRow row;
      if (!row.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return true;
      ++service.instances;
      if (row.available()) {
        ++service.healthy;
        service.healthy_versions.insert(row.service().version());
      }
      return service.instances < static_cast<int32_t>(kCatalogRowsMax);
    });
  }
}

Services gather(const machine::KeyReader& state, const Scope& scope, Status& status) {
  Services services;
  status = visit_services(state, scope, [&](const v1::ServiceRegistration& s) {
    Service& service = services[s.service_name()];
    ++service.instances;
    if (s.healthy()) {
      ++service.healthy;
      service.healthy_versions.insert(s.version());
    }
    for (const v1::ServiceDependency& d : s.dependencies()) {
      Callee& callee = service.calls[id_of(d.namespace_(), d.service_name(), scope)];
      if (callee.version.empty()) callee.version = d.version();
      callee.optional &= d.optional();
    }
  });
  std::set<std::string> called;
  for (const auto& [id, service] : services) {
    for (const auto& [callee, how] : service.calls) called.insert(callee);
  }
  for (const std::string& id : called) services.try_emplace(id);
  look_elsewhere(state, scope, services);
  return services;
}

void keep_reachable(Services& services, const std::string& root) {
  std::set<std::string> seen{root};
  std::vector<std::string> open{root};
  while (!open.empty()) {
    const auto at = services.find(open.back());
    open.pop_back();
    if (at == services.end()) continue;
    for (const auto& [callee, how] : at->second.calls) {
      if (seen.insert(callee).second) open.push_back(callee);
    }
  }
  std::erase_if(services, [&](const auto& item) { return !seen.contains(item.first); });
}

bool satisfied(const Service& callee, const std::string& version) {
  if (version.empty()) return callee.healthy > 0;
  const auto range = VersionRange::parse(version);
  return range && std::ranges::any_of(callee.healthy_versions, [&](const std::string& v) { return range->matches(v); });
}

Status check_size(const Services& services) {
  size_t edges = 0;
  for (const auto& [id, service] : services) edges += service.calls.size();
  if (services.size() <= kGraphNodesMax && edges <= kGraphEdgesMax) return Status::ok();
  return Status(Code::kInvalid, "GRAPH_TOO_LARGE",
                "the graph has " + std::to_string(services.size()) + " services and " + std::to_string(edges) +
                    " dependencies; at most " + std::to_string(kGraphNodesMax) + " and " +
                    std::to_string(kGraphEdgesMax) + " are answered. Name a service to begin with")
      .with_field("serviceName", "is needed here", "checkout");
}

}  // namespace

std::vector<std::vector<size_t>> find_cycles(const std::vector<std::vector<size_t>>& calls) {
  constexpr size_t kNone = ~size_t{0};
  struct Frame {
    size_t node, next;
  };
  std::vector<size_t> index(calls.size(), kNone), low(calls.size(), 0), stack;
  std::vector<bool> stacked(calls.size(), false);
  std::vector<std::vector<size_t>> cycles;
  size_t counter = 0;
  for (size_t root = 0; root < calls.size(); ++root) {
    if (index[root] != kNone) continue;
    std::vector<Frame> frames{{root, 0}};
    while (!frames.empty()) {
      const size_t node = frames.back().node;
      if (frames.back().next == 0 && index[node] == kNone) {
        index[node] = low[node] = counter++;
        stack.push_back(node);
        stacked[node] = true;
      }
      if (frames.back().next < calls[node].size()) {
        const size_t callee = calls[node][frames.back().next++];
        if (index[callee] == kNone) frames.push_back({callee, 0});
        else if (stacked[callee]) low[node] = std::min(low[node], index[callee]);
        continue;
      }
      frames.pop_back();
      if (!frames.empty()) low[frames.back().node] = std::min(low[frames.back().node], low[node]);
      if (low[node] != index[node]) continue;
      std::vector<size_t> group;
      size_t member = 0;
      do {
        member = stack.back();
        stack.pop_back();
        stacked[member] = false;
        group.push_back(member);
      } while (member != node);
      const bool itself = std::ranges::find(calls[node], node) != calls[node].end();
      if (group.size() == 1 && !itself) continue;
      std::ranges::sort(group);
      cycles.push_back(std::move(group));
    }
  }
  std::ranges::sort(cycles);
  return cycles;
}

Result<v1::DependencyGraph> dependency_graph(const machine::KeyReader& state, const Scope& scope,
                                             const v1::GetDependencyGraphRequest& request) {
  Status status;
  Services services = gather(state, scope, status);
  UCCP_RETURN_IF_ERROR(std::move(status));
  if (!request.service_name().empty()) keep_reachable(services, request.service_name());
  UCCP_RETURN_IF_ERROR(check_size(services));
  v1::DependencyGraph graph;
  std::map<std::string, size_t> numbers;
  for (const auto& [id, service] : services) {
    numbers.emplace(id, numbers.size());
    v1::DependencyNode& node = *graph.add_nodes();
    node.set_id(id);
    node.set_instances(service.instances);
    node.set_healthy(service.healthy);
  }
  std::vector<std::vector<size_t>> calls(services.size());
  for (const auto& [id, service] : services) {
    for (const auto& [callee, how] : service.calls) {
      calls[numbers.at(id)].push_back(numbers.at(callee));
      v1::DependencyEdge& edge = *graph.add_edges();
      edge.set_source(id);
      edge.set_target(callee);
      edge.set_version(how.version);
      edge.set_optional(how.optional);
      edge.set_satisfied(satisfied(services.at(callee), how.version));
    }
  }
  for (const auto& cycle : find_cycles(calls)) {
    auto& shown = *graph.add_cycles();
    for (const size_t member : cycle) shown.add_services(graph.nodes(static_cast<int>(member)).id());
  }
  if (request.format() == v1::GRAPH_FORMAT_DOT) graph.set_rendered(graph_as_dot(graph));
  if (request.format() == v1::GRAPH_FORMAT_SVG) graph.set_rendered(graph_as_svg(graph));
  return graph;
}

}  // namespace uccp::discovery
