// Log matching (Ongaro 2014, figure 3.2): entries with the same index and term are the same on all nodes, and so are
// all entries before them, because each is behind an entry of the same term everywhere.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "base/ids.h"
#include "base/log_types.h"
#include "sim/checkers/violations.h"

namespace uccp::sim {

class LogChecker {
 public:
  explicit LogChecker(Violations& violations) : violations_(violations) {}

  // `node` appended `entries` behind one of term `previous`.
  void appended(NodeId node, GroupId group, Term previous, std::span<const Entry> entries);

 private:
  struct Seen {
    Term term;
    Term previous;
    uint64_t hash = 0;
  };
  Violations& violations_;
  // By group and index: one for each term that the index had.
  std::map<GroupId, std::vector<std::vector<Seen>>> seen_;
};

}  // namespace uccp::sim
