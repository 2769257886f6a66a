#include "sim/checkers/apply_checker.h"

#include <algorithm>

namespace uccp::sim {

bool ApplyChecker::applied(NodeId node, GroupId id, LogIndex index, std::string_view command, uint64_t hash) {
  Group& group = groups_[id];
  const auto where = [&] {
    return "group " + std::to_string(id.value) + " index " + std::to_string(index.value) + " on node " +
           std::to_string(node.value);
  };
  LogIndex& last = group.last[node];
  if (index <= last) {
    violations_.add("apply", where() + " (" + std::string(command) + ") ran after index " + std::to_string(last.value) +
                                 " of the same process");
  }
  last = std::max(last, index);
  if (index.value >= group.seen.size()) group.seen.resize(index.value * 2 + 64);
  Seen& seen = group.seen[index.value];
  if (seen.command.empty()) {
    seen = {hash, std::string(command)};
    return true;
  }
  if (seen.hash != hash) {
    violations_.add(
        "apply", where() + " was " + seen.command + " and is " + std::string(command) + " now, or has another result");
  }
  return false;
}

}  // namespace uccp::sim
