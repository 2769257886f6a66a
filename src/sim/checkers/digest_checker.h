// Equal digest at equal index: of one node before and after a restart, and of all nodes of a group.
#pragma once

#include <map>
#include <utility>

#include "base/hash.h"
#include "base/ids.h"
#include "sim/checkers/violations.h"

namespace uccp::sim {

class DigestChecker {
 public:
  explicit DigestChecker(Violations& violations) : violations_(violations) {}

  void observed(NodeId node, GroupId group, LogIndex applied, const Digest& digest) {
    const auto [it, first] = seen_.try_emplace({group, applied}, digest);
    if (first || it->second == digest) return;
    violations_.add("digest", "group " + std::to_string(group.value) + " at index " + std::to_string(applied.value) +
                                  " had digest " + it->second.to_string() + " and has " + digest.to_string() +
                                  " on node " + std::to_string(node.value));
  }

 private:
  Violations& violations_;
  std::map<std::pair<GroupId, LogIndex>, Digest> seen_;
};

}  // namespace uccp::sim
