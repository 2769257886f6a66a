// How much of each quota is used, and whether there is room for more.
//
// Quotas of a tenant form a tree: global, teams and projects, namespaces, users. A task is charged to each quota on the
// way from its user and its namespace up. Two rules, each at every quota on the way:
//  - hard limits are never exceeded, and a part of them may be kept for tasks of high priority;
//  - beyond its soft limits a quota borrows: only what its parent has left once each sibling could still use of its own
//    soft limits what it does not lend.
// Pure memory. What is used is kept by tenant, namespace and user whether there are quotas or not, so quotas may come,
// go and move while tasks run.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "services/tasks/shapes.h"

namespace uccp::tasks {

enum class QuotaUnit : uint8_t { kCpu, kMemory, kGpu, kTpu, kDisk, kNetwork, kTasks };
inline constexpr size_t kQuotaUnits = 7;
// By unit; CPU and TPU in thousandths.
using QuotaAmounts = std::array<int64_t, kQuotaUnits>;
inline constexpr int64_t kUnlimited = -1;
inline constexpr int32_t kMostUrgent = 100;
inline constexpr QuotaAmounts kNoLimits = {kUnlimited, kUnlimited, kUnlimited, kUnlimited,
                                           kUnlimited, kUnlimited, kUnlimited};

// One task of this shape.
QuotaAmounts quota_amounts(const Shape& shape);

struct QuotaView {
  std::string key;     // "namespace:default", "user:default/alice", "team:search", "global:"
  std::string parent;  // key; empty: the default one
  QuotaAmounts hard = kNoLimits, soft = kNoLimits;
  QuotaAmounts lend = kNoLimits;  // unlimited: all of the soft limit
  // Parts of the hard limits that only tasks of such a priority may use.
  QuotaAmounts reserve{};
  int32_t reserve_priority = 0;
  // Units of which nothing more is given, and why: a budget of the month is used up.
  std::map<size_t, std::string> closed;

  auto operator<=>(const QuotaView&) const = default;
};

class QuotaBook {
 public:
  void set(const std::string& tenant, QuotaView quota);
  void remove(const std::string& tenant, const std::string& key);

  // No quota is set.
  bool empty() const { return tenants_.empty(); }

  // Whose use it is.
  struct Owner {
    std::string tenant, name_space, user;
    auto operator<=>(const Owner&) const = default;
  };
  // What one owner uses; stays where it is until nothing is charged to it any more.
  struct Account {
    const Owner* owner = nullptr;
    QuotaAmounts used{};
  };
  Account& account(const Owner& owner);
  // Charges one task; with the last one that is given back the account ends.
  void charge(Account& account, const QuotaAmounts& amounts, int64_t sign);
  void charge(const Owner& owner, const QuotaAmounts& amounts, int64_t sign) { charge(account(owner), amounts, sign); }
  // Why there is no room for a task of that priority, in one sentence; nothing if there is.
  std::optional<std::string> refusal(const Owner& owner, const QuotaAmounts& amounts,
                                     int32_t priority = kMostUrgent) const;

  struct Step {
    const QuotaView* quota = nullptr;
    QuotaAmounts used{};
    std::string refusal;  // empty: it has room
  };
  // Each quota on the way, from the whole down to the user.
  std::vector<Step> steps(const Owner& owner, const QuotaAmounts& amounts, int32_t priority = kMostUrgent) const;
  QuotaAmounts used(const std::string& tenant, const std::string& key) const;
  QuotaAmounts used(const Owner& owner) const;
  using VisitQuota = std::function<void(const std::string& tenant, const QuotaView&, const QuotaAmounts& used)>;
  void each(const VisitQuota& visit) const;
  // Keys of the quotas on the way, from the user up.
  std::vector<std::string> keys_of(const Owner& owner) const;

 private:
  struct Node {
    QuotaView view;
    QuotaAmounts used{};
  };
  using Nodes = std::map<std::string, Node>;  // by key

  static std::vector<const Node*> way(const Nodes& nodes, const Owner& owner);
  static std::string parent_of(const Nodes& nodes, const Node& node);
  static std::string refusal_of(const Nodes& nodes, const Node& node, const QuotaAmounts& amounts, int32_t priority);
  void recount(const std::string& tenant);

  std::map<std::string, Nodes> tenants_;
  std::map<Owner, Account> owners_;
};

// The key of the quota of a namespace, and of a user in it.
std::string namespace_quota_key(const std::string& name_space);
std::string user_quota_key(const std::string& name_space, const std::string& user);
inline constexpr const char* kGlobalQuotaKey = "global:";

}  // namespace uccp::tasks
