// What the cluster service needs of its node and of the others. The composition root implements these.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/status.h"

namespace uccp::cluster {

// One replication group on this node.
struct ReplicaState {
  GroupId id;
  std::string name;
  std::string role;
  NodeId leader;
  bool leads = false;  // leads and its state is current
  bool ready = false;  // its state is current
  Term term;
  LogIndex commit, applied, last;
  std::set<NodeId> voters;
  std::set<NodeId> learners;
  bool changing = false;  // a change of membership is under way
  std::string digest;
  uint32_t feature_level = 1;
};

enum class MembershipStep : uint8_t { kAddLearner, kPromote, kRemove };

// The groups of this node. Callable from any thread; callbacks come on the loop, exactly once.
class GroupControl {
 public:
  using Done = std::move_only_function<void(Status)>;
  virtual ~GroupControl() = default;
  virtual std::vector<ReplicaState> replicas() const = 0;
  // Requires that this node leads the group. kPromote fails with failed_precondition until the learner has caught up.
  virtual void change(GroupId group, MembershipStep step, NodeId node, Done done) = 0;
  // Hands the leadership over; done when this node leads no more.
  virtual void transfer(GroupId group, NodeId to, Done done) = 0;
};

// The other nodes. Callable from any thread; callbacks come on any thread, exactly once.
class Peers {
 public:
  using Done = std::move_only_function<void(Result<std::string>)>;
  virtual ~Peers() = default;
  virtual void call(NodeId to, std::string_view method, std::string request, int64_t timeout_ms, Done done) = 0;
};

}  // namespace uccp::cluster
