#include "sim/checkers/log_checker.h"

#include <algorithm>
#include <string>

#include "base/hash.h"

namespace uccp::sim {

void LogChecker::appended(NodeId node, GroupId group, Term previous, std::span<const Entry> entries) {
  auto& seen = seen_[group];
  for (const Entry& entry : entries) {
    if (entry.index.value >= seen.size()) seen.resize(entry.index.value * 2 + 64);
    auto& terms = seen[entry.index.value];
    const uint64_t hash = hash64(entry.data) + static_cast<uint64_t>(entry.kind);
    const auto found = std::ranges::find(terms, entry.term, &Seen::term);
    if (found == terms.end()) {
      terms.push_back({entry.term, previous, hash});
    } else if (found->previous != previous || found->hash != hash) {
      violations_.add("logs", "node " + std::to_string(node.value) + " appended entry " +
                                  std::to_string(entry.index.value) + " of term " + std::to_string(entry.term.value) +
                                  " of group " + std::to_string(group.value) +
                                  (found->hash != hash ? ", which another node has with other content"
                                                       : ", which another node has behind another term"));
    }
    previous = entry.term;
  }
}

}  // namespace uccp::sim
