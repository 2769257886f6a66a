// What a Core does with a leader's appends, heartbeats and snapshots. Ongaro (2014), section 3.5; fast backtracking
// over conflicting terms as in etcd-io/raft.
#include <algorithm>

#include "base/check.h"
#include "raft/planted.h"
#include "raft/state.h"

namespace uccp::raft {
namespace {

// decode_message proves most of this, but a simulated network may hand messages over without encoding them.
bool well_formed(const Message& message) {
  LogPosition previous = message.log;
  for (const Entry& entry : message.entries) {
    if (entry.index != previous.index.next() || entry.term < previous.term || entry.term > message.term) return false;
    if (entry.kind == EntryKind::kConfiguration && !decode_membership(entry.data)) return false;
    previous = {entry.term, entry.index};
  }
  return true;
}

}  // namespace

// The sender leads this term. False if this node does too, which only a broken peer can bring about.
bool Core::State::follow(const Message& message) {
  if (role_ == Role::kLeader) return false;
  if (role_ != Role::kFollower || leader_ != message.from) become_follower(term_, message.from);
  election_elapsed_ = 0;
  contact_elapsed_ = 0;
  withdrew_ = false;
  return true;
}

void Core::State::on_append(Message& message) {
  if (!well_formed(message) || !follow(message)) return;
  // Below the commit index all logs agree, so there is nothing to compare, and it may be compacted.
  const bool fits =
      log_.holds(message.log) || (UCCP_PLANTED(skip_log_matching) && message.log.index <= log_.last().index);
  if (message.log.index > commit_ && !fits) return refuse_append(message);

  const LogIndex last_new(message.log.index.value + message.entries.size());
  LogPosition previous = message.log;
  for (Entry& entry : message.entries) {
    const LogPosition position{entry.term, entry.index};
    if (position.index > log_.last().index) {
      append_entry(std::move(entry));
    } else if (position.index > commit_) {
      const Result<Term> term = log_.term(position.index);
      // Taking an unreadable entry for a conflict would drop what was acknowledged.
      UCCP_CHECK(term.has_value(), "the log answers for every durable entry");
      if (*term != position.term) {
        truncate_to(previous);
        append_entry(std::move(entry));
      }
    }
    previous = position;
  }
  advance_commit(std::min(message.commit, last_new));
  acknowledge(std::max(last_new, commit_), message.from);
}

void Core::State::refuse_append(const Message& message) {
  Message response = make(MessageKind::kAppendResponse, message.from);
  response.refused = true;
  response.index = message.log.index;
  response.log = log_.last_not_after(message.log);
  if (response.log.index < commit_) {
    // The walk came to where the logs agree for certain.
    response.log = {log_.term(commit_).value_or(Term()), commit_};
  }
  send(std::move(response));
}

void Core::State::acknowledge(LogIndex index, NodeId to) {
  Message response = make(MessageKind::kAppendResponse, to);
  response.index = index;
  if (UCCP_PLANTED(ack_before_persist)) return send(std::move(response));
  send_when_durable(std::move(response));
}

void Core::State::on_heartbeat(const Message& message) {
  if (!follow(message)) return;
  // The leader names only what this node acknowledged.
  advance_commit(std::min(message.commit, log_.last().index));
  if (message.context == 0) return;
  Message response = make(MessageKind::kHeartbeatResponse, message.from);
  response.context = message.context;
  response.index = LogIndex(lease_promise_ms());
  send(std::move(response));
}

void Core::State::on_snapshot_offer(const Message& message) {
  if (!follow(message)) return;
  if (message.log.index > commit_ && !log_.holds(message.log)) {
    out_->install_snapshot = message.log;
    return;
  }
  // A snapshot holds committed entries only.
  advance_commit(message.log.index);
  acknowledge(commit_, message.from);
}

}  // namespace uccp::raft
