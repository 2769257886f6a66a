// The terms of a log's entries, as runs of one term: a log has few of them.
#pragma once

#include <utility>
#include <vector>

#include "base/log_types.h"

namespace uccp::storage {

class TermRuns {
 public:
  // The term of an entry that was appended and not dropped since.
  Term of(LogIndex index) const;
  // Requires an index behind all others.
  void append(LogIndex index, Term term);
  // Drops the terms of entries from `index` on.
  void drop_from(LogIndex index);
  // Forgets runs that end before `index`.
  void drop_before(LogIndex index);
  void clear() { runs_.clear(); }

 private:
  // First index of each run, ascending.
  std::vector<std::pair<LogIndex, Term>> runs_;
};

}  // namespace uccp::storage
