// What the leader knows about one follower's log.
//
//   kProbe      where the logs meet is not known: one append at a time, until its answer or the next heartbeat's.
//   kReplicate  they are known to meet: appends are sent ahead of their answers, up to a window of bytes.
//   kSnapshot   the follower misses entries that are compacted: nothing is sent until the host reports.
//
// Invariant: match < next. What lies between is in flight (kReplicate) or unknown.
// Follows: etcd-io/raft's design.md, with a window of bytes instead of messages.
#pragma once

#include <cstdint>
#include <deque>

#include "base/ids.h"

namespace uccp::raft {

class Progress {
 public:
  enum class State : uint8_t { kProbe, kReplicate, kSnapshot };

  Progress() = default;
  // Probes from `next`. A new peer counts as active, so that it does not unseat its leader before it could answer.
  explicit Progress(LogIndex next) : next_(next) {}

  State state() const { return state_; }
  LogIndex match() const { return match_; }
  LogIndex next() const { return next_; }
  // Sending entries is not allowed now.
  bool paused(uint64_t inflight_bytes_max) const;

  // An append with entries up to `last` (next - 1 if it has none) was sent.
  void sent(LogIndex last, uint64_t bytes);
  // The follower has everything up to `index`. False if that was known.
  bool matched(LogIndex index);
  // The follower refused the append behind `refused`; its log may match at `hint`. False if the answer is out of date.
  bool refuse(LogIndex refused, LogIndex hint);
  // Lets one more probe through: a heartbeat was answered, so the one before it is lost or answered.
  void allow_probe() { probe_sent_ = false; }
  void become_probe();
  // The host says how sending a snapshot at `position` ended. Waits for the next heartbeat's answer, because the
  // follower's own answer is on its way and says more.
  void snapshot_ended(LogIndex position);
  // Requires that `match` is where the follower's log meets ours.
  void become_replicate();
  void become_snapshot();

  // Answered since the last check of the quorum.
  bool active = true;
  // The last heartbeat round that was answered.
  uint64_t round = 0;
  // For how long after a heartbeat it refuses votes, as it said with the last answer.
  uint64_t promise_ms = 0;
  // The leader waits for entries that its LogReader has not in memory.
  bool starved = false;
  // `match` at the last heartbeat: if it has not moved when that is answered, appends were lost.
  LogIndex match_at_heartbeat;
  // The greatest commit index that was sent.
  LogIndex commit_told;
  // The position of the snapshot that was offered.
  LogIndex snapshot;

 private:
  struct Sent {
    LogIndex last;
    uint64_t bytes;
  };

  State state_ = State::kProbe;
  LogIndex match_;
  LogIndex next_{1};
  bool probe_sent_ = false;
  std::deque<Sent> inflight_;
  uint64_t inflight_bytes_ = 0;
};

}  // namespace uccp::raft
