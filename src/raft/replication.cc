// The leader's side of replication: probing, pipelining, counting replicas. Ongaro (2014), sections 3.5, 3.6
// and 10.2.1; states of a follower as in etcd-io/raft.
#include <algorithm>

#include "raft/planted.h"
#include "raft/state.h"

namespace uccp::raft {
namespace {

// What an entry costs besides its data, so that the window also bounds floods of empty commands.
constexpr uint64_t kEntryOverheadBytes = 16;

}  // namespace

void Core::State::tick_leader() {
  ++tick_;
  tick_rounds_[tick_ % tick_rounds_.size()] = round_ + 1;
  if (++quorum_elapsed_ >= options_.election_ticks) {
    quorum_elapsed_ = 0;
    if (options_.check_quorum && !has_active_quorum()) return become_follower(term_, NodeId());
    for (auto& [peer, progress] : peers_) progress.active = false;
  }
  advance_transfer();
  if (++heartbeat_elapsed_ >= options_.heartbeat_ticks) {
    heartbeat_elapsed_ = 0;
    for (auto& [peer, progress] : peers_) progress.match_at_heartbeat = progress.match();
    race_ = true;
    start_round();
    serve_reads();
  }
  for (auto& [peer, progress] : peers_) {
    if (progress.starved) replicate(peer, progress);
  }
}

bool Core::State::has_active_quorum() const {
  return quorum_vote(membership(), [this](NodeId voter) {
           const auto found = peers_.find(voter);
           const bool active = voter == options_.id || (found != peers_.end() && found->second.active);
           return active ? VoteResult::kWon : VoteResult::kLost;
         }) == VoteResult::kWon;
}

void Core::State::replicate_all() {
  for (auto& [peer, progress] : peers_) replicate(peer, progress);
  race_ = false;
}

bool Core::State::may_wait(NodeId peer, const Progress& progress) const {
  if (!options_.followers_wait || race_ || transfer_ || quorum_.empty() || membership().joint()) return false;
  return progress.state() == Progress::State::kReplicate && std::ranges::all_of(quorum_, [&](NodeId needed) {
           const auto found = peers_.find(needed);
           return needed != peer && found != peers_.end() && found->second.state() == Progress::State::kReplicate;
         });
}

void Core::State::replicate(NodeId peer, Progress& progress) {
  if (!may_wait(peer, progress)) return send_entries(peer, progress);
  if (progress.next() <= log_.last().index) out_->followers_wait = true;
}

void Core::State::send_entries(NodeId peer, Progress& progress) {
  progress.starved = false;
  while (!progress.paused(options_.inflight_bytes_max)) {
    const bool pipelined = progress.state() == Progress::State::kReplicate;
    if (pipelined && progress.next() > log_.last().index) return;
    if (!send_append(peer, progress)) return;
  }
}

bool Core::State::send_append(NodeId peer, Progress& progress) {
  const LogIndex previous = progress.next().prev();
  const Result<Term> previous_term = log_.term(previous);
  if (!previous_term) return read_failed(peer, progress, previous_term.error());
  Message append = make(MessageKind::kAppend, peer);
  append.log = {*previous_term, previous};
  append.commit = commit_;
  LogIndex last = previous;
  uint64_t bytes = 0;
  const bool full = progress.state() == Progress::State::kReplicate && progress.paused(options_.inflight_bytes_max);
  if (!full && progress.next() <= log_.last().index) {
    Result<std::vector<Entry>> entries = log_.entries(progress.next(), options_.append_bytes_max);
    if (!entries) return read_failed(peer, progress, entries.error());
    append.entries = std::move(*entries);
    for (const Entry& entry : append.entries) bytes += entry.data.size() + kEntryOverheadBytes;
    last = append.entries.back().index;
  }
  progress.sent(last, bytes);
  progress.commit_told = std::max(progress.commit_told, std::min(last, commit_));
  send(std::move(append));
  return true;
}

bool Core::State::read_failed(NodeId peer, Progress& progress, const Status& why) {
  if (why.code() != Code::kNotFound) {
    progress.starved = true;
  } else if (progress.active) {
    progress.become_snapshot();
    progress.snapshot = log_.start().index;
    out_->snapshots_wanted.push_back(peer);
  }
  // A silent peer gets no snapshot made for it; its next answer brings us back here.
  return false;
}

void Core::State::on_append_response(const Message& message) {
  const auto found = peers_.find(message.from);
  if (found == peers_.end()) return;
  Progress& progress = found->second;
  progress.active = true;
  if (message.refused) {
    const LogIndex hint = message.log.term ? log_.last_not_after(message.log).index : message.log.index;
    if (progress.refuse(message.index, hint)) replicate(message.from, progress);
    return;
  }
  if (message.index > log_.last().index) return;  // a peer that claims what nobody sent
  const bool advanced = progress.matched(message.index);
  switch (progress.state()) {
    case Progress::State::kProbe:
      if (message.index == progress.match()) progress.become_replicate();
      break;
    case Progress::State::kSnapshot:
      // It got what it missed, perhaps from a snapshot that an earlier leader sent.
      if (advanced && log_.term(progress.match())) progress.become_replicate();
      break;
    case Progress::State::kReplicate: break;
  }
  replicate(message.from, progress);
  if (!advanced) return;
  if (transfer_ && transfer_->to == message.from && progress.match() == log_.last().index) hand_over(message.from);
  maybe_commit();
  // What it acknowledged may have been committed before.
  tell_commit();
}

void Core::State::on_heartbeat_response(const Message& message) {
  const auto found = peers_.find(message.from);
  if (found == peers_.end()) return;
  Progress& progress = found->second;
  progress.active = true;
  progress.round = std::max(progress.round, std::min(message.context, round_));
  progress.promise_ms = message.index.value;
  progress.allow_probe();
  if (progress.match() < log_.last().index) {
    replicate(message.from, progress);
    // Everything is sent and nothing was answered since the last heartbeat: an empty append finds out what was lost.
    const bool stuck =
        progress.state() == Progress::State::kReplicate && progress.match() == progress.match_at_heartbeat;
    if (stuck) {
      send_append(message.from, progress);
    }
  } else if (progress.state() == Progress::State::kProbe) {
    replicate(message.from, progress);
  }
  serve_reads();
}

void Core::State::maybe_commit() {
  const LogIndex reached(quorum_value(membership(), [this](NodeId voter) {
    if (voter == options_.id || UCCP_PLANTED(commit_alone)) return log_.durable().value;
    const auto found = peers_.find(voter);
    return found == peers_.end() ? 0 : found->second.match().value;
  }));
  if (reached <= commit_) return;
  // Entries of earlier terms are committed only along with one of the own term (figure 3.7 of the thesis).
  if (reached < term_start_ && !UCCP_PLANTED(commit_old_term)) return;
  quorum_.clear();
  for (const auto& [peer, progress] : peers_) {
    if (progress.match() >= reached && membership().is_voter(peer)) quorum_.push_back(peer);
  }
  advance_commit(reached);
  while (!uncommitted_.empty() && uncommitted_.front().last <= commit_) {
    uncommitted_bytes_ -= uncommitted_.front().bytes;
    uncommitted_.pop_front();
  }
  tell_commit();
  serve_reads();
  complete_configuration();
}

// An append or a heartbeat names the commit index too. Under load one follows at once, and a notice of its own would
// cost each follower a frame and two wake-ups for every commit.
void Core::State::tell_commit() {
  for (auto& [peer, progress] : peers_) {
    if (std::min(commit_, progress.match()) <= progress.commit_told) continue;
    if (options_.followers_wait) out_->followers_wait = true;
    else tell_commit(peer, progress);
  }
}

void Core::State::tell_commit(NodeId peer, Progress& progress) {
  const LogIndex usable = std::min(commit_, progress.match());
  if (usable <= progress.commit_told) return;
  progress.commit_told = usable;
  Message notice = make(MessageKind::kHeartbeat, peer);
  notice.commit = usable;
  send(std::move(notice));
}

void Core::State::on(const CatchUp& event) {
  for (auto& [peer, progress] : peers_) {
    if (event.peer && event.peer != peer) continue;
    if (progress.state() == Progress::State::kReplicate) send_entries(peer, progress);
    tell_commit(peer, progress);
  }
}

void Core::State::on(const SnapshotOffer& event) {
  const auto found = peers_.find(event.peer);
  if (found == peers_.end()) return;
  found->second.snapshot = std::max(found->second.snapshot, event.position.index);
  Message offer = make(MessageKind::kSnapshotOffer, event.peer);
  offer.log = event.position;
  send(std::move(offer));
}

void Core::State::on(const SnapshotStatus& event) {
  const auto found = peers_.find(event.peer);
  if (found == peers_.end() || found->second.state() != Progress::State::kSnapshot) return;
  Progress& progress = found->second;
  progress.snapshot_ended(event.ok ? std::min(progress.snapshot, log_.last().index) : LogIndex());
}

void Core::State::on(const Unreachable& event) {
  const auto found = peers_.find(event.peer);
  // What was sent ahead is probably lost.
  if (found != peers_.end() && found->second.state() == Progress::State::kReplicate) found->second.become_probe();
}

}  // namespace uccp::raft
