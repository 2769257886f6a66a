#include "services/tasks/quota_book.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace uccp::tasks {
namespace {

struct UnitName {
  const char* name;
  double scale;  // of the stored number to what people write
};
constexpr double kGib = 1 << 30;
constexpr std::array<UnitName, kQuotaUnits> kNames = {{{"CPU", 1000},
                                                       {"GiB of memory", kGib},
                                                       {"GPUs", 1},
                                                       {"TPUs", 1000},
                                                       {"GiB of disk", kGib},
                                                       {"bits a second of network", 1},
                                                       {"running tasks", 1}}};

std::string shown(size_t unit, int64_t amount) {
  return fmt::format("{:.6g}", static_cast<double>(std::max<int64_t>(0, amount)) / kNames[unit].scale);
}

}  // namespace

QuotaAmounts quota_amounts(const Shape& shape) {
  const auto tpus = shape.counted.find("accelerator tpu");
  // A share counts as a whole device, so that a quota is never exceeded by shares of many.
  const int64_t gpus = shape.gpus + (gpu_share(shape) > 0 ? 1 : 0);
  return {shape.cpu_milli, shape.memory,      gpus, tpus == shape.counted.end() ? 0 : tpus->second,
          shape.disk,      shape.network_bps, 1};
}

std::string namespace_quota_key(const std::string& name_space) { return "namespace:" + name_space; }
std::string user_quota_key(const std::string& name_space, const std::string& user) {
  return "user:" + name_space + "/" + user;
}

void QuotaBook::set(const std::string& tenant, QuotaView quota) {
  const std::string key = quota.key;
  tenants_[tenant][key].view = std::move(quota);
  recount(tenant);
}

void QuotaBook::remove(const std::string& tenant, const std::string& key) {
  const auto nodes = tenants_.find(tenant);
  if (nodes == tenants_.end()) return;
  nodes->second.erase(key);
  if (nodes->second.empty()) tenants_.erase(nodes);
  else recount(tenant);
}

// Without one of its own, a user's quota is below its namespace's, and all others are below the global one.
std::string QuotaBook::parent_of(const Nodes& nodes, const Node& node) {
  const std::string& key = node.view.key;
  if (!node.view.parent.empty()) return node.view.parent;
  if (key.starts_with("user:")) {
    const std::string above = namespace_quota_key(key.substr(5, key.find('/') - 5));
    if (nodes.contains(above)) return above;
  }
  return key == kGlobalQuotaKey ? "" : kGlobalQuotaKey;
}

std::vector<const QuotaBook::Node*> QuotaBook::way(const Nodes& nodes, const Owner& owner) {
  std::vector<const Node*> way;
  std::set<std::string> seen;
  for (const std::string& start : {user_quota_key(owner.name_space, owner.user), namespace_quota_key(owner.name_space),
                                   std::string(kGlobalQuotaKey)}) {
    for (std::string key = start; !key.empty() && seen.insert(key).second;) {
      const auto node = nodes.find(key);
      if (node == nodes.end()) break;
      way.push_back(&node->second);
      key = parent_of(nodes, node->second);
    }
  }
  return way;
}

QuotaBook::Account& QuotaBook::account(const Owner& owner) {
  const auto it = owners_.try_emplace(owner).first;
  it->second.owner = &it->first;
  return it->second;
}

void QuotaBook::charge(Account& account, const QuotaAmounts& amounts, int64_t sign) {
  for (size_t u = 0; u < kQuotaUnits; ++u) account.used[u] += sign * amounts[u];
  if (const auto nodes = tenants_.find(account.owner->tenant); nodes != tenants_.end()) {
    for (const Node* node : way(nodes->second, *account.owner)) {
      QuotaAmounts& used = nodes->second.at(node->view.key).used;
      for (size_t u = 0; u < kQuotaUnits; ++u) used[u] += sign * amounts[u];
    }
  }
  if (std::ranges::all_of(account.used, [](int64_t amount) { return amount == 0; }))
    owners_.erase(owners_.find(*account.owner));
}

void QuotaBook::recount(const std::string& tenant) {
  Nodes& nodes = tenants_.at(tenant);
  for (auto& [key, node] : nodes) node.used = {};
  for (auto it = owners_.lower_bound({tenant, "", ""}); it != owners_.end() && it->first.tenant == tenant; ++it) {
    for (const Node* node : way(nodes, it->first)) {
      QuotaAmounts& used = nodes.at(node->view.key).used;
      for (size_t u = 0; u < kQuotaUnits; ++u) used[u] += it->second.used[u];
    }
  }
}

std::string QuotaBook::refusal_of(const Nodes& nodes, const Node& node, const QuotaAmounts& amounts, int32_t priority) {
  const QuotaView& quota = node.view;
  for (size_t u = 0; u < kQuotaUnits; ++u) {
    if (amounts[u] == 0) continue;
    if (const auto closed = quota.closed.find(u); closed != quota.closed.end()) return closed->second;
    const int64_t after = node.used[u] + amounts[u];
    if (quota.hard[u] != kUnlimited && after > quota.hard[u]) {
      return fmt::format("the quota {} has {} of {} {} in use, {} more are asked for", quota.key,
                         shown(u, node.used[u]), shown(u, quota.hard[u]), kNames[u].name, shown(u, amounts[u]));
    }
    const int64_t kept = priority < quota.reserve_priority ? quota.reserve[u] : 0;
    if (quota.hard[u] != kUnlimited && kept > 0 && after > quota.hard[u] - kept) {
      return fmt::format(
          "the quota {} has {} of {} {} in use, {} more are asked for, and {} are kept for priorities from {}",
          quota.key, shown(u, node.used[u]), shown(u, quota.hard[u]), kNames[u].name, shown(u, amounts[u]),
          shown(u, kept), quota.reserve_priority);
    }
    if (quota.soft[u] == kUnlimited || after <= quota.soft[u]) continue;
    const auto parent = nodes.find(parent_of(nodes, node));
    if (parent == nodes.end() || parent->second.view.hard[u] == kUnlimited) continue;
    int64_t room = parent->second.view.hard[u] - parent->second.used[u];
    for (const auto& [key, sibling] : nodes) {
      if (key == quota.key || sibling.view.soft[u] == kUnlimited || sibling.view.lend[u] == kUnlimited) continue;
      if (parent_of(nodes, sibling) != parent->first) continue;
      room -= std::max<int64_t>(0, sibling.view.soft[u] - sibling.view.lend[u] - sibling.used[u]);
    }
    // What is still its own is not borrowed, but comes out of the same room.
    if (amounts[u] <= room) continue;
    return fmt::format("the quota {} is beyond its {} {}, and {} has {} to lend", quota.key, shown(u, quota.soft[u]),
                       kNames[u].name, parent->first, shown(u, room));
  }
  return {};
}

std::optional<std::string> QuotaBook::refusal(const Owner& owner, const QuotaAmounts& amounts, int32_t priority) const {
  const auto nodes = tenants_.find(owner.tenant);
  if (nodes == tenants_.end()) return std::nullopt;
  for (const Node* node : way(nodes->second, owner)) {
    if (std::string why = refusal_of(nodes->second, *node, amounts, priority); !why.empty()) return why;
  }
  return std::nullopt;
}

std::vector<QuotaBook::Step> QuotaBook::steps(const Owner& owner, const QuotaAmounts& amounts, int32_t priority) const {
  std::vector<Step> steps;
  const auto nodes = tenants_.find(owner.tenant);
  if (nodes == tenants_.end()) return steps;
  for (const Node* node : way(nodes->second, owner)) {
    steps.push_back({&node->view, node->used, refusal_of(nodes->second, *node, amounts, priority)});
  }
  std::ranges::reverse(steps);
  return steps;
}

QuotaAmounts QuotaBook::used(const std::string& tenant, const std::string& key) const {
  const auto nodes = tenants_.find(tenant);
  if (nodes == tenants_.end()) return {};
  const auto node = nodes->second.find(key);
  return node == nodes->second.end() ? QuotaAmounts{} : node->second.used;
}

QuotaAmounts QuotaBook::used(const Owner& owner) const {
  const auto it = owners_.find(owner);
  return it == owners_.end() ? QuotaAmounts{} : it->second.used;
}

std::vector<std::string> QuotaBook::keys_of(const Owner& owner) const {
  std::vector<std::string> keys;
  const auto nodes = tenants_.find(owner.tenant);
  if (nodes == tenants_.end()) return keys;
  for (const Node* node : way(nodes->second, owner)) keys.push_back(node->view.key);
  return keys;
}

void QuotaBook::each(const VisitQuota& visit) const {
  for (const auto& [tenant, nodes] : tenants_) {
    for (const auto& [key, node] : nodes) visit(tenant, node.view, node.used);
  }
}

}  // namespace uccp::tasks
