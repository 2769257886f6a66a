// What a node asks of the group's leader on another node, and changes of the membership.
#include <algorithm>

#include "base/log.h"
#include "node/group.h"

namespace uccp::node {
namespace {

constexpr int64_t kRequestTimeoutMs = 10'000;

}  // namespace

void Group::change_membership(const raft::MembershipChange& change, ChangeDone done) {
  if (closed_) return done(fail(Code::kUnavailable, "SHUTTING_DOWN", "this node is shutting down"));
  if (!leads()) return ask_peer({.kind = PeerRequest::Kind::kChangeMembership, .change = change}, std::move(done));
  if (Status status = check_learners(change); !status.is_ok()) return done(std::unexpected(std::move(status)));
  log::info("changing the membership", {{"group", name_}, {"steps", change.steps.size()}});
  const uint64_t token = next_token_++;
  proposed_[token].push_back({.done = [done = std::move(done)](Result<machine::Applied> applied) mutable {
    if (!applied) return done(std::unexpected(std::move(applied.error())));
    done(applied->index);
  }});
  step(raft::ProposeMembership{token, change});
}

// A voter that lacks much of the log would hold up every commit once another voter fails.
Status Group::check_learners(const raft::MembershipChange& change) const {
  const auto match = core_->match();
  for (const raft::MembershipStep& step : change.steps) {
    if (step.action != raft::MembershipAction::kPromote || !core_->membership().is_learner(step.node)) continue;
    const auto found = match.find(step.node);
    const uint64_t has = found == match.end() ? 0 : found->second.value;
    if (has + options_.promote_lag_entries >= core_->last().index.value && has > 0) continue;
    return std::move(Status(Code::kFailedPrecondition, "LEARNER_BEHIND",
                            "promoting node " + std::to_string(step.node.value) + " in group " + name_ +
                                ": it has entries up to " + std::to_string(has) + " of " +
                                std::to_string(core_->last().index.value) + "; wait until it has caught up"))
        .with_retry_after_ms(1000);
  }
  return Status::ok();
}

void Group::transfer(NodeId to, ChangeDone done) {
  if (closed_) return done(fail(Code::kUnavailable, "SHUTTING_DOWN", "this node is shutting down"));
  if (!leads()) return ask_peer({.kind = PeerRequest::Kind::kTransfer, .node = to}, std::move(done));
  if (to == options_.raft.id) return done(core_->last().index);
  const uint64_t token = next_token_++;
  transfers_[token] = std::move(done);
  step(raft::TransferLeadership{token, to});
}

void Group::hand_over(std::move_only_function<void()> done) {
  NodeId heir;
  LogIndex best;
  for (const auto& [node, match] : core_->match()) {
    if (node == options_.raft.id || !core_->membership().voters.contains(node) || match < best) continue;
    heir = node;
    best = match;
  }
  // A voter that never answered would keep this node waiting.
  if (closed_ || !leads() || !heir || !best) return done();
  transfer(heir, [done = std::move(done)](Result<LogIndex>) mutable { done(); });
}

void Group::finish_transfer(Result<LogIndex> result) {
  for (auto& [token, done] : std::exchange(transfers_, {})) done(result);
}

void Group::ask_peer(PeerRequest request, ChangeDone done) {
  if (!core_->leader()) return done(std::unexpected(not_leader()));
  request.token = next_token_++;
  send(core_->leader(), PeerItemKind::kRequest, encode(request));
  requests_[request.token] = {env_.clock.boot().plus_ms(kRequestTimeoutMs), core_->leader(), std::move(done)};
}

void Group::take_request(NodeId from, const PeerRequest& request) {
  auto answer = [this, from, token = request.token](Result<LogIndex> result) {
    PeerReply reply{.token = token};
    if (result) reply.index = *result;
    else reply.status = result.error();
    send(from, PeerItemKind::kReply, encode(reply));
  };
  // One hop: what came from another node is never passed on.
  if (!leads()) return answer(std::unexpected(not_leader()));
  switch (request.kind) {
    case PeerRequest::Kind::kReadIndex: {
      const BootTime now = env_.clock.boot();
      ReadBatch batch{.asked = now, .deadline = now.plus_ms(options_.read_timeout_ms)};
      batch.leader_only = true;
      // Answered when it is applied here too; then it is at least as far as the asker needs.
      batch.dones.push_back([this, from, answer](Result<machine::GroupView> view) mutable {
        if (view) answer(view->applied());
        else answer(std::unexpected(view.error()));
        // The asker waits until it has applied that.
        step(raft::CatchUp{from});
      });
      return ask_core(std::move(batch), false);
    }
    case PeerRequest::Kind::kChangeMembership: return change_membership(request.change, std::move(answer));
    case PeerRequest::Kind::kTransfer: return transfer(request.node, std::move(answer));
  }
}

void Group::take_reply(NodeId from, PeerReply reply) {
  if (const auto read = asked_reads_.find(reply.token); read != asked_reads_.end()) {
    if (read->second.peer != from) return;
    if (!reply.status.is_ok()) return (void)read_refused(reply.token, reply.status);
    read_confirmed(reply.token, reply.index);
    return serve_reads();
  }
  const auto request = requests_.find(reply.token);
  if (request == requests_.end() || request->second.peer != from) return;
  ChangeDone done = std::move(request->second.done);
  requests_.erase(request);
  if (reply.status.is_ok()) done(reply.index);
  else done(std::unexpected(std::move(reply.status)));
}

void Group::tick_requests() {
  const BootTime now = env_.clock.boot();
  for (auto it = requests_.begin(); it != requests_.end();) {
    if (now < it->second.deadline) {
      ++it;
      continue;
    }
    ChangeDone done = std::move(it->second.done);
    it = requests_.erase(it);
    done(fail(Code::kOutcomeUnknown, "LEADER_SILENT",
              "the leader of group " + name_ + " did not answer; ask for the status before trying again"));
  }
}

void Group::close_requests() {
  const Status why(Code::kOutcomeUnknown, "SHUTTING_DOWN", "this node stopped before the leader answered");
  for (auto& [token, request] : std::exchange(requests_, {})) request.done(std::unexpected(why));
  finish_transfer(std::unexpected(why));
}

}  // namespace uccp::node
