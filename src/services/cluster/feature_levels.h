// Raises the feature level of the groups that this node leads to what all their members can apply.
//
// Members are asked themselves, not a table: a program of before would not keep in the table what it does not know, and
// its state would differ from the others'. Who does not answer holds the level back.
// Loop thread only; tick() is cheap and re-runnable.
#pragma once

#include <map>
#include <memory>
#include <set>

#include "base/clock.h"
#include "base/executor.h"
#include "machine/ports.h"
#include "services/cluster/cluster_ports.h"

namespace uccp::cluster {

// Everything must outlive the object, and callbacks that come after its end.
struct FeatureLevelsEnvironment {
  NodeId self;
  uint32_t level_max = 1;  // that this node supports
  GroupControl& groups;
  Peers& peers;
  machine::Proposer& proposer;
  Executor& loop;
  const Clock& clock;
};

class FeatureLevels {
 public:
  explicit FeatureLevels(FeatureLevelsEnvironment environment) : env_(std::move(environment)) {}

  void tick();

 private:
  // What the members said that were asked together; 0: no answer.
  struct Round {
    size_t left = 0;
    std::map<NodeId, uint32_t> levels;
  };
  struct Shared {
    bool asking = false;
    std::set<GroupId> raising;
  };

  bool behind(const ReplicaState& group) const;
  void ask(const std::set<NodeId>& members);
  static void finish(const FeatureLevelsEnvironment& env, const std::shared_ptr<Shared>& shared, const Round& round);

  const FeatureLevelsEnvironment env_;
  std::shared_ptr<Shared> shared_ = std::make_shared<Shared>();
  BootTime next_ask_;
};

}  // namespace uccp::cluster
