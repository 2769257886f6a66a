// What a leader is asked to do: commands, membership changes, handing over. Ongaro (2014), sections 3.10, 4.1 to 4.3.
#include <fmt/format.h>

#include "raft/state.h"

namespace uccp::raft {

void Core::State::on(Propose&& event) {
  if (role_ != Role::kLeader) return refuse_not_leader(event.token);
  if (event.commands.empty()) {
    return refuse(event.token, Status(Code::kInvalid, "PROPOSAL_EMPTY", "proposing: no commands are given"));
  }
  if (transfer_) {
    return refuse(event.token, Status(Code::kUnavailable, "LEADERSHIP_MOVES",
                                      fmt::format("proposing: the leadership moves to node {}", transfer_->to.value)));
  }
  uint64_t bytes = 0;
  for (const Proposed& command : event.commands) bytes += command.data.size();
  // One proposal always fits, however large: its own limit is the host's affair.
  if (uncommitted_bytes_ > 0 && uncommitted_bytes_ + bytes > options_.uncommitted_bytes_max) {
    return refuse(event.token, Status(Code::kExhausted, "UNCOMMITTED_BYTES_MAX",
                                      fmt::format("proposing {} bytes: {} of {} bytes are waiting to be committed",
                                                  bytes, uncommitted_bytes_, options_.uncommitted_bytes_max)));
  }
  out_->accepted.push_back({event.token, {term_, log_.last().index.next()}});
  for (Proposed& command : event.commands) {
    append_entry(
        {term_, log_.last().index.next(), EntryKind::kCommand, std::move(command.data), std::move(command.packed)});
  }
  uncommitted_.push_back({log_.last().index, bytes});
  uncommitted_bytes_ += bytes;
  replicate_all();
}

Status Core::State::check_change_allowed() const {
  if (transfer_) {
    return Status(Code::kUnavailable, "LEADERSHIP_MOVES",
                  fmt::format("changing the membership: the leadership moves to node {}", transfer_->to.value));
  }
  // Without an own committed entry two leaders could change the same configuration to sets that do not overlap
  // (Ongaro's correction of 2015 on raft-dev).
  if (commit_ < term_start_) {
    return Status(Code::kUnavailable, "LEADER_NOT_READY",
                  "changing the membership: the leader has not committed an entry of its term yet");
  }
  if (membership().joint() || configurations_.back().index > commit_) {
    return Status(Code::kConflict, "MEMBERSHIP_CHANGE_IN_FLIGHT",
                  "changing the membership: the change before is not complete (" + to_string(membership()) + ")");
  }
  return Status::ok();
}

void Core::State::on(const ProposeMembership& event) {
  if (role_ != Role::kLeader) return refuse_not_leader(event.token);
  if (Status allowed = check_change_allowed(); !allowed.is_ok()) return refuse(event.token, std::move(allowed));
  Result<Membership> next = apply_change(membership(), event.change);
  if (!next) return refuse(event.token, std::move(next.error()));
  out_->accepted.push_back({event.token, {term_, log_.last().index.next()}});
  append_configuration(*next);
}

void Core::State::append_configuration(const Membership& membership) {
  append_entry({term_, log_.last().index.next(), EntryKind::kConfiguration, encode_membership(membership)});
  sync_peers();
  replicate_all();
}

void Core::State::sync_peers() {
  const std::set<NodeId> members = membership().members();
  quorum_.clear();
  std::erase_if(peers_, [&members](const auto& peer) { return !members.contains(peer.first); });
  for (NodeId member : members) {
    if (member != options_.id) peers_.try_emplace(member, log_.last().index.next());
  }
  if (transfer_ && !membership().voters.contains(transfer_->to)) {
    abort_transfer(Status(Code::kFailedPrecondition, "TRANSFER_TARGET_REMOVED",
                          fmt::format("moving the leadership: node {} is no voter any more", transfer_->to.value)));
  }
}

// Called when the commit index of the leader has grown.
void Core::State::complete_configuration() {
  if (configurations_.back().index > commit_) return;
  if (membership().joint()) return append_configuration(leave_joint(membership()));
  if (membership().is_voter(options_.id)) return;
  // A leader that removed itself has done its last duty. The voter with the longest log need not wait for a timeout.
  NodeId heir;
  LogIndex best;
  for (const auto& [peer, progress] : peers_) {
    if (!membership().is_voter(peer) || progress.match() < best) continue;
    heir = peer;
    best = progress.match();
  }
  if (heir) hand_over(heir);
  become_follower(term_, NodeId());
}

void Core::State::on(const TransferLeadership& event) {
  if (role_ != Role::kLeader) return refuse_not_leader(event.token);
  if (transfer_) {
    return refuse(event.token, Status(Code::kConflict, "TRANSFER_IN_PROGRESS",
                                      fmt::format("moving the leadership: it moves to node {}", transfer_->to.value)));
  }
  const auto found = peers_.find(event.to);
  if (found == peers_.end() || !membership().voters.contains(event.to)) {
    return refuse(event.token,
                  Status(Code::kFailedPrecondition, "TRANSFER_TARGET",
                         fmt::format("moving the leadership: node {} is not another voter", event.to.value)));
  }
  transfer_ = Transfer{event.to, event.token};
  if (found->second.match() == log_.last().index) {
    hand_over(event.to);
  } else {
    replicate(event.to, found->second);
  }
}

void Core::State::hand_over(NodeId to) {
  if (transfer_) {
    if (transfer_->ordered) return;
    transfer_->ordered = true;
  }
  // The order may arrive at any time from now on, and voters then ignore the lease.
  lease_void_ = true;
  send(make(MessageKind::kTimeoutNow, to));
}

void Core::State::advance_transfer() {
  if (!transfer_ || ++transfer_->elapsed < options_.election_ticks) return;
  abort_transfer(Status(Code::kUnavailable, "TRANSFER_TIMED_OUT",
                        fmt::format("moving the leadership: node {} did not take over in time", transfer_->to.value)));
}

void Core::State::abort_transfer(Status why) {
  refuse(transfer_->token, std::move(why));
  transfer_.reset();
}

}  // namespace uccp::raft
