// An index of a group has one command with one result for ever: it runs once in the life of a process, and when a
// restarted process runs it again, command and result are the same. So nothing that was applied is lost or changed.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "sim/checkers/violations.h"

namespace uccp::sim {

class ApplyChecker {
 public:
  explicit ApplyChecker(Violations& violations) : violations_(violations) {}

  // A process of the node began; it may apply again what it had not flushed.
  void restarted(NodeId node) {
    for (auto& [key, last] : last_) {
      if (key.first == node) last = LogIndex(0);
    }
  }
  // `hash` covers command, payload and result.
  void applied(NodeId node, GroupId group, LogIndex index, std::string_view command, uint64_t hash);

 private:
  struct Seen {
    uint64_t hash = 0;
    std::string command;
  };
  Violations& violations_;
  std::map<std::pair<GroupId, LogIndex>, Seen> seen_;
  std::map<std::pair<NodeId, GroupId>, LogIndex> last_;
};

}  // namespace uccp::sim
