#include "storage/term_runs.h"

#include <algorithm>

#include "base/check.h"

namespace uccp::storage {

Term TermRuns::of(LogIndex index) const {
  const auto after = std::ranges::upper_bound(runs_, index, {}, [](const auto& run) { return run.first; });
  UCCP_CHECK(after != runs_.begin(), "the term of an entry that is there");
  return std::prev(after)->second;
}

void TermRuns::append(LogIndex index, Term term) {
  if (runs_.empty() || runs_.back().second != term) runs_.emplace_back(index, term);
}

void TermRuns::drop_from(LogIndex index) {
  while (!runs_.empty() && runs_.back().first >= index) runs_.pop_back();
}

void TermRuns::drop_before(LogIndex index) {
  const auto first_kept = std::ranges::upper_bound(runs_, index, {}, [](const auto& run) { return run.first; });
  if (first_kept - runs_.begin() > 1) runs_.erase(runs_.begin(), std::prev(first_kept));
}

}  // namespace uccp::storage
