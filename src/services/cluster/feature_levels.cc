#include "services/cluster/feature_levels.h"

#include <algorithm>

#include "base/log.h"
#include "machine/machine.h"
#include "uccp/internal/v1/node.pb.h"

namespace uccp::cluster {
namespace {

constexpr int64_t kAskEveryMs = 1'000;
constexpr int64_t kAskMs = 2'000;
constexpr uint32_t kFirstLevel = 1;  // of programs that do not speak of levels

uint32_t level_in(const Result<std::string>& answer) {
  internal::v1::GetReplicasResponse response;
  if (!answer || !response.ParseFromString(*answer)) return 0;
  return std::max(kFirstLevel, response.feature_level_max());
}

std::set<NodeId> members_of(const ReplicaState& group) {
  std::set<NodeId> members = group.voters;
  members.insert(group.learners.begin(), group.learners.end());
  return members;
}

}  // namespace

bool FeatureLevels::behind(const ReplicaState& group) const {
  return group.leads && !group.changing && group.feature_level < env_.level_max && !shared_->raising.contains(group.id);
}

void FeatureLevels::tick() {
  if (shared_->asking || env_.clock.boot() < next_ask_) return;
  std::set<NodeId> members;
  for (const ReplicaState& group : env_.groups.replicas()) {
    if (behind(group)) members.merge(members_of(group));
  }
  if (members.empty()) return;
  next_ask_ = env_.clock.boot().plus_ms(kAskEveryMs);
  ask(members);
}

void FeatureLevels::ask(const std::set<NodeId>& members) {
  auto round = std::make_shared<Round>();
  round->left = members.size();
  shared_->asking = true;
  for (const NodeId node : members) {
    const auto take = [env = env_, shared = shared_, round, node](uint32_t level) {
      round->levels[node] = level;
      if (--round->left > 0) return;
      shared->asking = false;
      finish(env, shared, *round);
    };
    if (node == env_.self) {
      env_.loop.post([take, level = env_.level_max] { take(level); });
      continue;
    }
    env_.peers.call(node, "uccp.internal.v1.NodeLink/GetReplicas", {}, kAskMs,
                    [take, &loop = env_.loop](const Result<std::string>& answer) {
                      loop.post([take, level = level_in(answer)] { take(level); });
                    });
  }
}

void FeatureLevels::finish(const FeatureLevelsEnvironment& env, const std::shared_ptr<Shared>& shared,
                           const Round& round) {
  for (const ReplicaState& group : env.groups.replicas()) {
    if (!group.leads || group.changing || shared->raising.contains(group.id)) continue;
    uint32_t level = env.level_max;
    for (const NodeId node : members_of(group)) {
      const auto told = round.levels.find(node);
      level = std::min(level, told == round.levels.end() ? 0 : told->second);
    }
    if (level <= group.feature_level) continue;
    machine::Envelope envelope;
    envelope.principal = "system";
    envelope.command = "machine.set_feature_level";
    envelope.payload = machine::encode_feature_level(level);
    shared->raising.insert(group.id);
    env.proposer.propose(group.id, std::move(envelope),
                         [shared, id = group.id, name = group.name, level](const Result<machine::Applied>& applied) {
                           shared->raising.erase(id);
                           if (applied) log::info("feature level raised", {{"group", name}, {"level", level}});
                         });
  }
}

}  // namespace uccp::cluster
