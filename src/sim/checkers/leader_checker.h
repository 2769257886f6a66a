// One leader a term: whoever speaks as the leader of a group's term, or serves as one, is the only one that ever does.
#pragma once

#include <map>
#include <string>
#include <utility>

#include "base/ids.h"
#include "sim/checkers/violations.h"

namespace uccp::sim {

class LeaderChecker {
 public:
  explicit LeaderChecker(Violations& violations) : violations_(violations) {}

  void led(GroupId group, Term term, NodeId node) {
    const auto [it, first] = leaders_.try_emplace({group, term}, node);
    if (first || it->second == node) return;
    violations_.add("leaders", "group " + std::to_string(group.value) + " term " + std::to_string(term.value) +
                                   " is led by node " + std::to_string(it->second.value) + " and by node " +
                                   std::to_string(node.value));
  }
  size_t count() const { return leaders_.size(); }

 private:
  Violations& violations_;
  std::map<std::pair<GroupId, Term>, NodeId> leaders_;
};

}  // namespace uccp::sim
