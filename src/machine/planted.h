// Planted bugs: known mistakes that the simulator and the checkers have to find, compiled only with UCCP_PLANTED_BUGS.
//
// Names: drop_dedup (a repeated command runs again), apply_twice (now and then a command runs twice),
// expire_any_generation (a lease that was touched since expires), snapshot_without_replies (of earlier requests),
// watch_gap (a change is not delivered), ignore_bound and ignore_token (reads of these levels see what is there),
// no_fence (the outcome of an epoch that has passed counts), reuse_token (of a grant before), lost_wakeup (a waiter is
// not served), overtake (a later waiter is), reuse_term (of an election),
// keep_expired (an instance stays when its lease ended), forget_producer (sequence numbers are not looked at),
// skip_batch (a stream that goes on from a cursor leaves a batch out), trim_much (retention removes one event too
// many), lose_kept (a snapshot of a bus group leaves out the events that it needs), compact_newest (compaction removes
// the newest event of a key, too), old_server (who served a subscription before goes on moving its places), forget_part
// (a transaction forgets all groups but the first), lose_settled (what a transaction confirmed is lost when who serves
// the subscription has not heard of it). Set before
// anything applies.
#pragma once

#include <string>
#include <string_view>

namespace uccp::machine {

#ifdef UCCP_PLANTED_BUGS
// True if plant_bug(name) was called.
bool planted_bug(std::string_view name);
void plant_bug(std::string name);
#else
constexpr bool planted_bug(std::string_view) { return false; }
#endif

}  // namespace uccp::machine
