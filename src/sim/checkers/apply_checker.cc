#include "sim/checkers/apply_checker.h"

namespace uccp::sim {

void ApplyChecker::applied(NodeId node, GroupId group, LogIndex index, std::string_view command, uint64_t hash) {
  const std::string where = "group " + std::to_string(group.value) + " index " + std::to_string(index.value);
  LogIndex& last = last_[{node, group}];
  if (index <= last) {
    violations_.add("apply", where + " (" + std::string(command) + ") ran after index " + std::to_string(last.value) +
                                 " of the same process");
  }
  last = std::max(last, index);
  const auto [it, first] = seen_.try_emplace({group, index}, Seen{hash, std::string(command)});
  if (first || it->second.hash == hash) return;
  violations_.add("apply", where + " was " + it->second.command + " and is " + std::string(command) +
                               " now, or has another result");
}

}  // namespace uccp::sim
