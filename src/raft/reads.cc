// Heartbeat rounds of the leader, and the linearizable reads that they confirm. Ongaro (2014), section 6.4.
//
// A round is one heartbeat to every member. A majority that answers round r proves that no later leader was elected
// before r was sent, so reads that came before r may see the commit index they came with. At most one round is under
// way for reads; those that come meanwhile share the next one.
#include <algorithm>

#include <fmt/format.h>

#include "raft/planted.h"
#include "raft/state.h"

namespace uccp::raft {

void Core::State::on(const ReadIndex& event) {
  if (role_ != Role::kLeader) return refuse_not_leader(event.token);
  if (UCCP_PLANTED(read_unconfirmed) || (event.lease && commit_ >= term_start_ && lease_valid())) {
    out_->reads.push_back({event.token, commit_});
    return;
  }
  if (reads_.size() >= kPendingReadsMax) {
    return refuse(event.token, Status(Code::kExhausted, "PENDING_READS_MAX",
                                      fmt::format("{} reads wait for confirmation already", reads_.size())));
  }
  // Entries before this term's first one may be committed without this leader knowing it.
  reads_.push_back({event.token, std::max(commit_, term_start_), 0});
  if (read_round_ <= confirmed_round()) start_round();
  serve_reads();
}

void Core::State::start_round() {
  ++round_;
  for (auto read = reads_.rbegin(); read != reads_.rend() && read->round == 0; ++read) {
    read->round = round_;
    read_round_ = round_;
  }
  for (auto& [peer, progress] : peers_) {
    Message heartbeat = make(MessageKind::kHeartbeat, peer);
    heartbeat.context = round_;
    heartbeat.commit = std::min(commit_, progress.match());
    progress.commit_told = std::max(progress.commit_told, heartbeat.commit);
    send(std::move(heartbeat));
  }
}

void Core::State::serve_reads() {
  if (reads_.empty()) return;
  if (read_round_ <= confirmed_round() && reads_.back().round == 0) start_round();
  const uint64_t confirmed = confirmed_round();
  while (!reads_.empty()) {
    const PendingRead& read = reads_.front();
    if (read.round == 0 || read.round > confirmed || read.index > commit_) return;
    out_->reads.push_back({read.token, read.index});
    reads_.pop_front();
  }
}

// The last round that a majority answered; UINT64_MAX is impossible because a membership has voters.
uint64_t Core::State::confirmed_round() const {
  return quorum_value(membership(), [this](NodeId voter) {
    if (voter == options_.id) return round_;
    const auto found = peers_.find(voter);
    return found == peers_.end() ? 0 : found->second.round;
  });
}

uint64_t Core::State::promised_round() const {
  return quorum_value(membership(), [this](NodeId voter) {
    if (voter == options_.id) return round_;
    const auto found = peers_.find(voter);
    const bool promises = found != peers_.end() && found->second.promise_ms >= lease_promise_ms();
    return promises ? found->second.round : 0;
  });
}

// Valid while a majority answered a round sent so recently that none of it votes for another yet, even if the clocks of
// leader and voters run at rates that differ by lease_margin_ticks in election_ticks.
bool Core::State::lease_valid() const {
  if (UCCP_PLANTED(stale_lease_read)) return options_.lease_reads;
  // The tick in which a round was sent may have been all but over.
  const uint32_t unusable = options_.lease_margin_ticks + 1;
  if (!options_.lease_reads || lease_void_ || options_.election_ticks <= unusable) return false;
  const uint64_t length = options_.election_ticks - unusable;
  const size_t size = tick_rounds_.size();
  const uint64_t oldest = tick_rounds_[(tick_ + size - length) % size];
  return membership().is_only_voter(options_.id) || promised_round() >= oldest;
}

}  // namespace uccp::raft
