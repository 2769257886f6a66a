#include "services/discovery/catalog.h"

#include <algorithm>
#include <set>
#include <sstream>
#include <tuple>
#include <vector>

#include "services/discovery/traffic.h"

namespace uccp::discovery {
namespace {

using Registration = v1::ServiceRegistration;

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

// One service while its instances come.
class Summary {
 public:
  explicit Summary(std::string name) : name_(std::move(name)) {}

  void add(const Registration& s) {
    ++instances_;
    healthy_ += s.healthy();
    add_text(types_, s.type());
    add_text(protocols_, s.protocol());
    for (const auto& protocol : s.protocols()) add_text(protocols_, protocol);
    for (const auto& capability : s.capabilities()) add_text(capabilities_, capability);
    add_text(regions_, s.region());
    add_text(zones_, s.zone());
    for (const auto& [key, value] : s.labels()) add_text(labels_, key + "=" + value);
    for (const auto& [key, value] : s.metadata()) add_text(metadata_, value);
    for (const auto& dependency : s.dependencies()) add_text(dependencies_, dependency.service_name());
    const auto role = s.has_deployment() && s.deployment().role() != v1::DEPLOYMENT_ROLE_UNSPECIFIED
                          ? s.deployment().role()
                          : v1::DEPLOYMENT_ROLE_STABLE;
    roles_.insert(role);
    Version& version = versions_[{s.version(), role}];
    ++version.instances;
    version.healthy += s.healthy();
    if (s.healthy()) {
      levels_[s.priority()].push_back({&version, {s.effective_weight(), {role, {}, s.deployment().traffic_percent()}}});
    }
  }

  const std::string& name() const { return name_; }
  // 0: does not match; the best is 4.
  int rank(const std::vector<std::string>& words) const {
    const std::string name = lower(name_);
    int worst = 4;
    for (const std::string& word : words) {
      const size_t at = name.find(word);
      int rank = name == word ? 4 : at == 0 ? 3 : at != std::string::npos ? 2 : 0;
      if (rank == 0 && mentions(word)) rank = 1;
      worst = std::min(worst, rank);
    }
    return worst;
  }

  void show(const std::string& name_space, v1::CatalogEntry& out) const {
    out.set_service_name(name_);
    out.set_namespace_(name_space);
    out.set_instances(instances_);
    out.set_healthy(healthy_);
    const bool colours = roles_.contains(v1::DEPLOYMENT_ROLE_BLUE) || roles_.contains(v1::DEPLOYMENT_ROLE_GREEN);
    out.set_rollout(roles_.contains(v1::DEPLOYMENT_ROLE_CANARY) ? v1::ROLLOUT_CANARY
                    : colours                                   ? v1::ROLLOUT_BLUE_GREEN
                                                                : v1::ROLLOUT_NONE);
    show_versions(out);
    const auto all = [](const std::set<std::string>& from, google::protobuf::RepeatedPtrField<std::string>* to) {
      for (const std::string& text : from) to->Add(std::string(text));
    };
    all(types_, out.mutable_types());
    all(protocols_, out.mutable_protocols());
    all(capabilities_, out.mutable_capabilities());
    all(regions_, out.mutable_regions());
    all(zones_, out.mutable_zones());
    all(dependencies_, out.mutable_dependencies());
    for (const std::string& label : labels_) {
      if (out.labels_size() < kCatalogLabelsMax) out.add_labels(label);
    }
  }

 private:
  struct Version {
    int32_t instances = 0, healthy = 0;
  };
  struct Member {
    const Version* version;
    TrafficMember traffic;
  };

  static void add_text(std::set<std::string>& to, const std::string& text) {
    if (!text.empty()) to.insert(text);
  }
  bool mentions(const std::string& word) const {
    const auto in = [&](const std::set<std::string>& texts) {
      return std::ranges::any_of(texts,
                                 [&](const std::string& text) { return lower(text).find(word) != std::string::npos; });
    };
    const bool version = std::ranges::any_of(
        versions_, [&](const auto& v) { return lower(v.first.first).find(word) != std::string::npos; });
    return version || in(types_) || in(protocols_) || in(capabilities_) || in(regions_) || in(zones_) || in(labels_) ||
           in(metadata_);
  }
  void show_versions(v1::CatalogEntry& out) const {
    std::map<const Version*, double> percents;
    // Only the level that is used first gets traffic.
    if (!levels_.empty()) {
      const auto& level = levels_.begin()->second;
      std::vector<TrafficMember> members;
      for (const Member& m : level) members.push_back(m.traffic);
      const auto shares = traffic_shares(members);
      for (size_t i = 0; i < level.size(); ++i) percents[level[i].version] += shares[i] * 100;
    }
    for (const auto& [key, version] : versions_) {
      v1::CatalogVersion& shown = *out.add_versions();
      shown.set_version(key.first);
      shown.set_role(key.second);
      shown.set_instances(version.instances);
      shown.set_healthy(version.healthy);
      shown.set_traffic_percent(percents[&version]);
    }
    std::ranges::sort(*out.mutable_versions(), {},
                      [](const v1::CatalogVersion& v) { return std::tuple(-v.instances(), v.version(), v.role()); });
  }

  const std::string name_;
  int32_t instances_ = 0, healthy_ = 0;
  std::set<std::string> types_, protocols_, capabilities_, regions_, zones_, labels_, metadata_, dependencies_;
  std::set<v1::DeploymentRole> roles_;
  std::map<std::pair<std::string, v1::DeploymentRole>, Version> versions_;
  std::map<int32_t, std::vector<Member>> levels_;
};

}  // namespace

Status visit_services(const machine::KeyReader& state, const Scope& scope,
                      const std::function<void(const v1::ServiceRegistration&)>& visit) {
  size_t visited = 0;
  scan_services(state, scope, "", "", [&](std::string_view, std::string_view bytes) {
    if (++visited > kCatalogRowsMax) return false;
    ServiceRow row;
    if (row.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) visit(row.service());
    return true;
  });
  if (visited <= kCatalogRowsMax) return Status::ok();
  return Status(Code::kInvalid, "CATALOG_TOO_LARGE",
                "the namespace " + scope.name_space + " has more than " + std::to_string(kCatalogRowsMax) +
                    " instances; use ListServices, which has pages")
      .with_field("namespace", "has too many instances to sum up");
}

Result<v1::GetServiceCatalogResponse> search_catalog(const machine::KeyReader& state, const Scope& scope,
                                                     const v1::GetServiceCatalogRequest& request) {
  std::vector<std::string> words;
  std::istringstream in(lower(request.query()));
  for (std::string word; in >> word;) words.push_back(word);
  std::map<std::string, Summary> services;
  UCCP_RETURN_IF_ERROR(visit_services(state, scope, [&](const Registration& s) {
    services.try_emplace(s.service_name(), s.service_name()).first->second.add(s);
  }));
  std::vector<std::pair<int, const Summary*>> found;
  for (const auto& [name, summary] : services) {
    if (const int rank = summary.rank(words); rank > 0) found.emplace_back(rank, &summary);
  }
  std::ranges::sort(found, {}, [](const auto& f) { return std::pair(-f.first, f.second->name()); });
  v1::GetServiceCatalogResponse response;
  response.set_matched(static_cast<int32_t>(found.size()));
  const int limit = request.limit() > 0 ? request.limit() : kCatalogLimitDefault;
  for (const auto& [rank, summary] : found) {
    if (response.entries_size() >= limit) break;
    summary->show(scope.name_space, *response.add_entries());
  }
  return response;
}

}  // namespace uccp::discovery
