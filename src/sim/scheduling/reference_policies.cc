#include "sim/scheduling/reference_policies.h"

#include <algorithm>

#include "base/check.h"

namespace uccp::sim {

void ReferencePolicy::end(size_t job) {
  const auto node = running_.extract(job);
  UCCP_CHECK(!node.empty(), "only what runs ends");
  free_ += node.mapped().processors;
}

void ReferencePolicy::begin(const Waiting& one, int64_t now_s, std::vector<size_t>& out) {
  free_ -= one.processors;
  running_[one.job] = {one.processors, now_s + one.limit_s};
  out.push_back(one.job);
}

std::vector<size_t> ReferencePolicy::start(int64_t now_s) {
  std::vector<size_t> out;
  if (policy_ == Policy::kConservative) {
    start_by_reservations(now_s, out);
    return out;
  }
  start_in_order(now_s, out);
  if (policy_ == Policy::kEasy && !waiting_.empty()) backfill_behind_first(now_s, out);
  return out;
}

void ReferencePolicy::start_in_order(int64_t now_s, std::vector<size_t>& out) {
  size_t begun = 0;
  for (; begun < waiting_.size() && waiting_[begun].processors <= free_; ++begun) begin(waiting_[begun], now_s, out);
  waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<ptrdiff_t>(begun));
}

// The first one is to start when enough has ended at the latest; what is spare then may be used for longer.
void ReferencePolicy::backfill_behind_first(int64_t now_s, std::vector<size_t>& out) {
  const Profile free_from = profile(now_s);
  const Waiting first = waiting_.front();
  const int64_t head_s = earliest(free_from, first);
  int64_t spare = std::prev(free_from.upper_bound(head_s))->second - first.processors;
  std::erase_if(waiting_, [&](const Waiting& one) {
    if (one.job == first.job || one.processors > free_) return false;
    const bool ends_before = now_s + one.limit_s <= head_s;
    if (!ends_before && one.processors > spare) return false;
    if (!ends_before) spare -= one.processors;
    begin(one, now_s, out);
    return true;
  });
}

// All reservations are made anew in the order of arrival, so that early ends move everybody forward.
void ReferencePolicy::start_by_reservations(int64_t now_s, std::vector<size_t>& out) {
  Profile free_from = profile(now_s);
  std::erase_if(waiting_, [&](const Waiting& one) {
    const int64_t from_s = earliest(free_from, one);
    take(free_from, from_s, one);
    if (from_s > now_s) return false;
    begin(one, now_s, out);
    return true;
  });
}

ReferencePolicy::Profile ReferencePolicy::profile(int64_t now_s) const {
  Profile ends;
  for (const auto& [job, one] : running_) ends[std::max(one.ends_s, now_s + 1)] += one.processors;
  Profile profile{{now_s, free_}};
  int64_t free = free_;
  for (const auto& [at_s, more] : ends) profile[at_s] = free += more;
  return profile;
}

int64_t ReferencePolicy::earliest(const Profile& profile, const Waiting& one) {
  for (auto from = profile.begin(); from != profile.end(); ++from) {
    const auto end = profile.lower_bound(from->first + one.limit_s);
    if (std::all_of(from, end, [&](const auto& part) { return part.second >= one.processors; })) return from->first;
  }
  UCCP_CHECK(false, "jobs larger than the machine are not submitted");
  return 0;
}

void ReferencePolicy::take(Profile& profile, int64_t from_s, const Waiting& one) {
  const auto split = [&](int64_t at_s) {
    return profile.try_emplace(at_s, std::prev(profile.upper_bound(at_s))->second).first;
  };
  const auto from = split(from_s);
  const auto end = split(from_s + one.limit_s);
  for (auto part = from; part != end; ++part) part->second -= one.processors;
}

}  // namespace uccp::sim
