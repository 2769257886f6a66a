// Bugs planted on purpose: with the build option UCCP_PLANTED_BUGS a test switches one of them on and demands that the
// simulator's checkers find it. Without the option every site is the constant false.
//
// Names: forget_vote, ack_before_persist, commit_old_term (counting replicas of an earlier term), commit_alone (without
// a majority), stale_lease_read, read_unconfirmed, ignore_config_on_append, new_quorum_alone (in a joint
// configuration), skip_log_matching, vote_for_stale (whatever the candidate's log).
#pragma once

#if defined(UCCP_PLANTED_BUGS)
namespace uccp::raft {
// True if `name` was activated in this process.
bool planted_bug(const char* name);
// Activates one bug and deactivates any other; nullptr: none. Not thread-safe: call before the cores run.
void plant_bug(const char* name);
}  // namespace uccp::raft
#define UCCP_PLANTED(name) (::uccp::raft::planted_bug(#name))
#else
#define UCCP_PLANTED(name) false
#endif
