#include "services/tasks/run_times.h"

#include <algorithm>
#include <bit>

namespace uccp::tasks {
namespace {

// The next of 2^n and 3 * 2^(n-1) that is not less.
int64_t half_octave_up(int64_t ms) {
  const auto power = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(ms, 1))));
  const int64_t between = power / 4 * 3;
  return between >= ms ? between : power;
}

}  // namespace

void RunTimes::note(const Name& name, int64_t run_ms) {
  if (names_.size() >= kNamesMax && !names_.contains(name)) {
    names_.erase(by_age_.begin()->second);
    by_age_.erase(by_age_.begin());
  }
  Runs& runs = names_[name];
  if (runs.last.size() < kRunsKept) runs.last.push_back(run_ms);
  else runs.last[runs.next] = run_ms;
  runs.next = (runs.next + 1) % kRunsKept;
  by_age_.erase(runs.noted);
  runs.noted = ++notes_;
  by_age_[runs.noted] = name;
}

std::optional<int64_t> RunTimes::estimate_ms(const Name& name) const {
  const auto runs = names_.find(name);
  if (runs == names_.end() || runs->second.last.size() < kRunsNeeded) return std::nullopt;
  return half_octave_up(std::ranges::max(runs->second.last));
}

}  // namespace uccp::tasks
