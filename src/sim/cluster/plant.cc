#include "sim/cluster/plant.h"

#include <algorithm>
#include <iterator>
#include <string_view>

#include "machine/planted.h"
#include "raft/planted.h"
#include "storage/planted.h"

namespace uccp::sim {

#ifdef UCCP_PLANTED_BUGS
namespace {

constexpr std::string_view kBugs[] = {"skip_fsync",
                                      "trust_torn",
                                      "forget_vote",
                                      "ack_before_persist",
                                      "commit_old_term",
                                      "commit_alone",
                                      "stale_lease_read",
                                      "read_unconfirmed",
                                      "ignore_config_on_append",
                                      "new_quorum_alone",
                                      "skip_log_matching",
                                      "vote_for_stale",
                                      "drop_dedup",
                                      "apply_twice",
                                      "expire_any_generation",
                                      "snapshot_without_replies",
                                      "watch_gap",
                                      "ignore_bound",
                                      "ignore_token",
                                      "no_fence",
                                      "reuse_token",
                                      "lost_wakeup",
                                      "overtake",
                                      "reuse_term",
                                      "keep_expired",
                                      "forget_producer",
                                      "skip_batch",
                                      "trim_much",
                                      "lose_kept",
                                      "compact_newest",
                                      "old_server",
                                      "forget_part",
                                      "lose_settled"};

}  // namespace

std::string plant(const std::string& name) {
  if (name.empty()) return "";
  if (std::ranges::find(kBugs, name) == std::end(kBugs)) {
    std::string known = "no planted bug is named '" + name + "'; there are";
    for (const std::string_view bug : kBugs) known += " " + std::string(bug);
    return known;
  }
  storage::plant_bug(name);
  machine::plant_bug(name);
  raft::plant_bug(name.c_str());
  return "";
}
#else
std::string plant(const std::string& name) {
  return name.empty() ? "" : "--plant needs uccp-sim-planted, which has the bugs compiled in";
}
#endif

}  // namespace uccp::sim
