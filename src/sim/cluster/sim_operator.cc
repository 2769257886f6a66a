#include "sim/cluster/sim_operator.h"

#include <algorithm>

#include "machine/machine.h"

namespace uccp::sim {
namespace {

constexpr size_t kVotersMax = 7;
constexpr size_t kVotersMin = 3;
constexpr size_t kReplacedMax = 3;
constexpr int64_t kLookMs = 60;
using raft::MembershipAction;
using raft::MembershipChange;
using raft::MembershipStep;

}  // namespace

void SimOperator::founded(const std::vector<NodeId>& founders) {
  voters_.insert(founders.begin(), founders.end());
  losses_max_ = (founders.size() - 1) / 2;
}

void SimOperator::later(int64_t ms, std::function<void()> work) {
  cluster_.scheduler().schedule_after(ms * 1000, std::move(work));
}

NodeId SimOperator::any_voter() {
  auto it = voters_.begin();
  std::advance(it, random_.below(voters_.size()));
  return *it;
}

std::set<NodeId> SimOperator::members() const {
  std::set<NodeId> all = voters_;
  all.insert(learners_.begin(), learners_.end());
  return all;
}

void SimOperator::order() {
  settled_ = false;
  if (std::exchange(looking_, true)) return;
  later(kLookMs, [this] { look(); });
}

bool SimOperator::grow() {
  if (!takes_orders() || voters_.size() >= kVotersMax) return false;
  NodeId fresh;
  if (!learners_.empty() && random_.chance(0.5)) {
    fresh = *learners_.begin();
    learners_.erase(fresh);
  } else {
    fresh = cluster_.add_machine();
  }
  if (!fresh) return false;
  voters_.insert(fresh);
  order();
  return true;
}

bool SimOperator::shrink() {
  if (!takes_orders() || (voters_.size() <= kVotersMin && learners_.empty())) return false;
  if (!learners_.empty() && (voters_.size() <= kVotersMin || random_.chance(0.3))) learners_.erase(learners_.begin());
  else voters_.erase(any_voter());
  order();
  return true;
}

bool SimOperator::replace() {
  if (!takes_orders() || voters_.size() < kVotersMin) return false;
  // Several at once: then a majority of the old ones and one of the new ones need not have a node in common.
  std::vector<NodeId> fresh;
  for (size_t wanted = std::min(1 + random_.below(kReplacedMax), voters_.size()); fresh.size() < wanted;) {
    const NodeId id = cluster_.add_machine();
    if (!id) break;
    fresh.push_back(id);
  }
  for (size_t i = 0; i < fresh.size(); ++i) voters_.erase(any_voter());
  voters_.insert(fresh.begin(), fresh.end());
  if (!fresh.empty()) order();
  return !fresh.empty();
}

bool SimOperator::add_learner() {
  if (!takes_orders() || learners_.size() >= 2) return false;
  const NodeId fresh = cluster_.add_machine();
  if (!fresh) return false;
  learners_.insert(fresh);
  order();
  return true;
}

bool SimOperator::may_lose(size_t place) const {
  return settled_ && losses_ + doubtful_.size() < losses_max_ && voters_.size() >= kVotersMin &&
         lost_now_ + doubtful_.size() < (voters_.size() - 1) / 2 && members().contains(cluster_.node(place).id()) &&
         !doubtful_.contains(cluster_.node(place).id());
}

void SimOperator::lost(NodeId old, NodeId fresh) {
  doubtful_.erase(old);
  ++losses_;
  ++lost_now_;
  if (voters_.erase(old) > 0) voters_.insert(fresh);
  else if (learners_.erase(old) > 0) learners_.insert(fresh);
  else return cluster_.retire(fresh);
  order();
}

void SimOperator::look() {
  bool all = true;
  for (const GroupId group : groups_of(cluster_.options())) all = settle(group) && all;
  if (!all) return later(kLookMs, [this] { look(); });
  looking_ = false;
  settled_ = true;
  as_ordered_.clear();
  lost_now_ = 0;
  // Whoever is not a member any more is switched off.
  std::vector<NodeId> outsiders;
  for (size_t place = 0; place < cluster_.places(); ++place) {
    if (cluster_.has_node(place) && !members().contains(cluster_.node(place).id())) {
      outsiders.push_back(cluster_.node(place).id());
    }
  }
  for (const NodeId id : outsiders) cluster_.retire(id);
}

bool SimOperator::settle(GroupId group) {
  const size_t leader = cluster_.leader(group);
  if (leader == cluster_.places()) return false;
  const node::GroupStatus status = cluster_.node(leader).node().status().at(group).group;
  const raft::Membership& now = status.membership;
  if (now.joint()) return false;
  const auto change = next_change(now);
  if (!change) {
    // In force, but perhaps not committed: another leader could still drop it.
    const auto [seen, first] = as_ordered_.try_emplace(group, status.term, status.last);
    if (seen->second.first != status.term) seen->second = {status.term, status.last};
    return status.applied >= seen->second.second;
  }
  as_ordered_.erase(group);
  // Any node takes the order and passes it to the leader; what came of it is seen at the next look.
  const size_t asked = random_.chance(0.5) ? leader : cluster_.any_place(random_);
  if (!cluster_.running(asked)) return false;
  if (cluster_.tracing()) {
    cluster_.note("group " + std::to_string(group.value) + " is " + raft::to_string(now) + ", " +
                  std::to_string(change->steps.size()) + " steps ordered, the first for node " +
                  std::to_string(change->steps.front().node.value));
  }
  cluster_.node(asked).node().change_membership(group, *change, [](Result<LogIndex>) {});
  return false;
}

std::optional<MembershipChange> SimOperator::next_change(const raft::Membership& now) {
  MembershipChange change;
  for (const NodeId id : members()) {
    if (!now.contains(id)) return MembershipChange{{{MembershipAction::kAddLearner, id}}};
  }
  for (const NodeId id : voters_) {
    if (!now.voters.contains(id)) change.steps.push_back({MembershipAction::kPromote, id});
  }
  for (const NodeId id : now.members()) {
    const bool leaves = !members().contains(id);
    // A voter that shall only learn leaves first; nobody orders that.
    if (leaves) change.steps.push_back({MembershipAction::kRemove, id});
  }
  if (change.steps.empty()) return std::nullopt;
  // Together they are a joint change, one by one simple ones.
  if (random_.chance(0.5)) change.steps.resize(1);
  return change;
}

bool SimOperator::transfer() {
  const std::vector<GroupId> groups = groups_of(cluster_.options());
  const GroupId group = groups[random_.below(groups.size())];
  const size_t asked = cluster_.any_place(random_);
  if (!cluster_.running(asked) || voters_.size() < 2) return false;
  cluster_.node(asked).node().transfer(group, any_voter(), [](const Status&) {});
  return true;
}

bool SimOperator::rolling_restart() {
  if (std::exchange(restarting_, true)) return false;
  const auto all = members();
  to_restart_.assign(all.begin(), all.end());
  restart_next();
  return true;
}

bool SimOperator::upgrade() {
  if (std::exchange(upgraded_, true)) return false;
  raise_levels();
  return true;
}

void SimOperator::raise_levels() {
  bool all = true;
  for (const GroupId group : groups_of(cluster_.options())) {
    const size_t leader = cluster_.leader(group);
    const bool led = leader < cluster_.places();
    node::Node* node = led ? &cluster_.node(leader).node() : nullptr;
    if (led && node->status().at(group).group.feature_level == machine::kFeatureLevelMax) continue;
    all = false;
    if (!led) continue;
    machine::Envelope raise;
    raise.principal = "system";
    raise.command = "machine.set_feature_level";
    raise.payload = machine::encode_feature_level(machine::kFeatureLevelMax);
    node->propose(group, std::move(raise), [](const Result<machine::Applied>&) {});
  }
  if (!all) later(kLookMs, [this] { raise_levels(); });
}

void SimOperator::restart_next() {
  restarting_ = !to_restart_.empty();
  if (!restarting_) return;
  const NodeId id = to_restart_.back();
  to_restart_.pop_back();
  const size_t place = cluster_.place_of(id);
  if (place < cluster_.places()) cluster_.restart_node(place);
  // The next one when this one serves again, or after a while.
  const auto wait = [this, id](auto&& self, int tries) -> void {
    const size_t place = cluster_.place_of(id);
    const bool gone = place == cluster_.places();
    const bool serves = !gone && cluster_.node(place).ready() && !cluster_.node(place).stopping();
    if (gone || serves || tries == 0) return restart_next();
    later(100, [self, tries] { self(self, tries - 1); });
  };
  later(100, [wait] { wait(wait, 30); });
}

}  // namespace uccp::sim
