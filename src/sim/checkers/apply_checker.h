// An index of a group has one command with one result for ever, on every node: it runs once in the life of a process,
// and whoever runs it again has the same command and result. So nothing that was applied is lost or changed.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "sim/checkers/violations.h"

namespace uccp::sim {

class ApplyChecker {
 public:
  explicit ApplyChecker(Violations& violations) : violations_(violations) {}

  // A process of the node began; it may apply again what it had not flushed.
  void restarted(NodeId node) {
    for (auto& [id, group] : groups_) group.last[node] = LogIndex(0);
  }
  // `hash` covers command, payload and result. True if no node applied the index before.
  bool applied(NodeId node, GroupId group, LogIndex index, std::string_view command, uint64_t hash);

 private:
  struct Seen {
    uint64_t hash = 0;
    std::string command;  // empty: not seen
  };
  struct Group {
    std::vector<Seen> seen;  // by index
    std::map<NodeId, LogIndex> last;
  };
  Violations& violations_;
  std::map<GroupId, Group> groups_;
};

}  // namespace uccp::sim
