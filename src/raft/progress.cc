#include "raft/progress.h"

#include <algorithm>

namespace uccp::raft {

bool Progress::paused(uint64_t inflight_bytes_max) const {
  switch (state_) {
    case State::kProbe: return probe_sent_;
    case State::kReplicate: return inflight_bytes_ >= inflight_bytes_max;
    case State::kSnapshot: return true;
  }
  return true;
}

void Progress::sent(LogIndex last, uint64_t bytes) {
  if (state_ == State::kProbe) {
    probe_sent_ = true;
    return;
  }
  if (state_ != State::kReplicate || last < next_) return;
  next_ = last.next();
  inflight_.push_back({last, bytes});
  inflight_bytes_ += bytes;
}

bool Progress::matched(LogIndex index) {
  while (!inflight_.empty() && inflight_.front().last <= index) {
    inflight_bytes_ -= inflight_.front().bytes;
    inflight_.pop_front();
  }
  if (index <= match_) return false;
  match_ = index;
  next_ = std::max(next_, match_.next());
  return true;
}

bool Progress::refuse(LogIndex refused, LogIndex hint) {
  if (state_ == State::kSnapshot) return false;
  if (state_ == State::kReplicate) {
    // Whatever was sent ahead is lost with it, so the logs meet at `match` for certain.
    if (refused <= match_) return false;
    become_probe();
    return true;
  }
  if (refused.next() != next_) return false;
  next_ = std::max(std::min(refused, hint.next()), match_.next());
  probe_sent_ = false;
  return true;
}

void Progress::become_probe() {
  state_ = State::kProbe;
  next_ = match_.next();
  probe_sent_ = false;
  inflight_.clear();
  inflight_bytes_ = 0;
}

void Progress::snapshot_ended(LogIndex position) {
  become_probe();
  next_ = std::max(next_, position.next());
  probe_sent_ = true;
}

void Progress::become_replicate() {
  become_probe();
  state_ = State::kReplicate;
}

void Progress::become_snapshot() {
  become_probe();
  state_ = State::kSnapshot;
}

}  // namespace uccp::raft
