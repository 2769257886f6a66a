// Reads of a group. A linearizable read asks the leader for an index, confirmed by a majority after the read began, and
// waits until that is applied here. On the leader the core is asked, elsewhere the leader's node.
//
// Freshness for bounded reads comes from the same answers: what was acknowledged before a confirmed read was asked is
// in the state that serves it. No clock of another node is trusted.
#include <algorithm>

#include "node/group.h"

namespace uccp::node {
namespace {

// How long the state is kept fresh after somebody wanted a bounded read that it was too old for.
constexpr int64_t kRefreshMs = 5'000;

Status unconfirmed(const std::string& group) {
  return std::move(Status(Code::kUnavailable, "READ_NOT_CONFIRMED",
                          "reading group " + group +
                              ": no leader confirmed in time that the state here is current; "
                              "retry, or read with a lower consistency"))
      .with_retry_after_ms(500);
}

}  // namespace

void Group::read(const machine::ReadLevel& level, machine::Reader::Done done) {
  using Kind = machine::ReadLevel::Kind;
  if (closed_) return done(std::unexpected(Status(Code::kUnavailable, "SHUTTING_DOWN", "this node is shutting down")));
  const BootTime now = env_.clock.boot();
  const BootTime deadline = now.plus_ms(options_.read_timeout_ms);
  if (level.kind == Kind::kSession) {
    const auto it = level.token.find(id_);
    reads_.emplace(it == level.token.end() ? LogIndex(0) : it->second, IndexedRead{deadline, {}, std::move(done)});
    return serve_reads();
  }
  if (level.kind == Kind::kBounded) refresh_until_ = now.plus_ms(kRefreshMs);
  if (!leads()) return queue_read(deadline, std::move(done));
  ReadBatch batch{.asked = now, .deadline = deadline};
  batch.dones.push_back(std::move(done));
  ask_core(std::move(batch), level.kind == Kind::kLease);
}

void Group::queue_read(BootTime deadline, machine::Reader::Done done) {
  if (queued_reads_.size() >= options_.queued_reads_max) {
    return done(fail(Status(Code::kExhausted, "QUEUED_READS_MAX",
                            std::to_string(queued_reads_.size()) + " reads of group " + name_ + " wait for its leader")
                         .with_retry_after_ms(100)));
  }
  queued_reads_.push_back({deadline, std::move(done)});
  if (std::exchange(ask_scheduled_, true)) return;
  env_.loop.post([this] {
    ask_scheduled_ = false;
    ask_leader();
  });
}

void Group::ask_core(ReadBatch batch, bool lease) {
  const uint64_t token = next_token_++;
  asked_reads_[token] = std::move(batch);
  step(raft::ReadIndex{token, lease});
}

// Asks about everything queued, if there is somebody to ask.
void Group::ask_leader() {
  if (closed_ || queued_reads_.empty() || !core_->leader()) return;
  const uint64_t token = next_token_++;
  ReadBatch batch{.asked = env_.clock.boot(), .deadline = queued_reads_.front().deadline};
  for (QueuedRead& read : queued_reads_) {
    batch.deadline = std::min(batch.deadline, read.deadline);
    batch.dones.push_back(std::move(read.done));
  }
  queued_reads_.clear();
  if (leads()) return ask_core(std::move(batch), false);
  batch.peer = core_->leader();
  send(batch.peer, PeerItemKind::kRequest, encode(PeerRequest{.token = token}));
  asked_reads_[token] = std::move(batch);
}

void Group::read_confirmed(uint64_t token, LogIndex index) {
  auto node = asked_reads_.extract(token);
  if (node.empty()) return;
  ReadBatch& batch = node.mapped();
  if (batch.confirm_only) {
    // Who asks only whether this node still leads, such as a keep-alive, does not wait for apply: under load that would
    // let leases end that their owners keep alive.
    for (auto& done : batch.dones) {
      if (done) done(machine_.view());
    }
    return;
  }
  if (batch.dones.empty()) batch.dones.emplace_back();
  for (auto& done : batch.dones) reads_.emplace(index, IndexedRead{batch.deadline, batch.asked, std::move(done)});
}

bool Group::read_refused(uint64_t token, const Status& why) {
  auto node = asked_reads_.extract(token);
  if (node.empty()) return false;
  retry_reads(std::move(node.mapped()), why);
  return true;
}

void Group::retry_reads(ReadBatch batch, const Status& why) {
  const bool again =
      !closed_ && !batch.leader_only && (why.code() == Code::kNotLeader || why.code() == Code::kUnavailable);
  for (auto& done : batch.dones) {
    if (!done) continue;
    // Asked again at the next tick or when a leader is known, so that two nodes do not ask each other in a circle.
    if (again) queued_reads_.push_back({batch.deadline, std::move(done)});
    else done(std::unexpected(why));
  }
}

void Group::serve_reads() {
  while (!reads_.empty() && reads_.begin()->first <= machine_.applied()) {
    auto node = reads_.extract(reads_.begin());
    IndexedRead& read = node.mapped();
    if (read.asked.us != 0) {
      confirmed_ = std::max(confirmed_, read.asked);
      env_.confirm(id_, read.asked);
    }
    if (read.done) read.done(machine_.view());
  }
}

void Group::tick_reads() {
  const BootTime now = env_.clock.boot();
  std::vector<uint64_t> stale;
  for (const auto& [token, batch] : asked_reads_) {
    const bool lost =
        batch.peer && (batch.peer != core_->leader() || now.ms_since(batch.asked) >= options_.read_retry_ms);
    if (lost || now >= batch.deadline) stale.push_back(token);
  }
  for (uint64_t token : stale) (void)read_refused(token, unconfirmed(name_));
  std::vector<machine::Reader::Done> late;
  std::erase_if(queued_reads_, [&](QueuedRead& read) {
    if (now < read.deadline) return false;
    late.push_back(std::move(read.done));
    return true;
  });
  for (auto it = reads_.begin(); it != reads_.end();) {
    if (now < it->second.deadline) {
      ++it;
      continue;
    }
    if (it->second.done) late.push_back(std::move(it->second.done));
    it = reads_.erase(it);
  }
  for (auto& done : late) done(std::unexpected(unconfirmed(name_)));
  ask_leader();
  refresh(now);
}

// Asks for no read, but to know how old the state here is.
void Group::refresh(BootTime now) {
  const bool due = options_.confirm_every_ms > 0 && now.ms_since(confirmed_) >= options_.confirm_every_ms;
  if ((now >= refresh_until_ && !due) || asked_reads_.contains(refresh_token_)) return;
  ReadBatch refresh{.asked = now, .deadline = now.plus_ms(options_.read_timeout_ms), .peer = core_->leader()};
  if (leads()) {
    refresh.peer = NodeId();
    refresh_token_ = next_token_;
    if (!sole_voter()) ask_core(std::move(refresh), false);
  } else if (refresh.peer) {
    refresh_token_ = next_token_++;
    send(refresh.peer, PeerItemKind::kRequest, encode(PeerRequest{.token = refresh_token_}));
    asked_reads_[refresh_token_] = std::move(refresh);
  }
}

void Group::close_reads() {
  const Status why(Code::kUnavailable, "SHUTTING_DOWN", "this node is shutting down");
  for (auto& [token, batch] : std::exchange(asked_reads_, {})) retry_reads(std::move(batch), why);
  for (auto& read : std::exchange(queued_reads_, {})) read.done(std::unexpected(why));
  for (auto& [index, read] : std::exchange(reads_, {})) {
    if (read.done) read.done(std::unexpected(why));
  }
}

// Renewed only after leadership was confirmed later than the keep-alive came in.
void Group::keep_alive(machine::LeaseId lease, machine::Leases::Done done) {
  when_leading(std::move(done), [this, lease] { return leases_.renew(lease, env_.clock.boot()); });
}

void Group::time_left(machine::LeaseId lease, machine::Leases::Done done) {
  when_leading(std::move(done), [this, lease] { return leases_.left(lease, env_.clock.boot()); });
}

void Group::when_leading(machine::Leases::Done done, std::move_only_function<Result<int64_t>()> answer) {
  if (closed_ || !leads()) return done(std::unexpected(not_leader()));
  ReadBatch batch{.asked = env_.clock.boot(), .deadline = env_.clock.boot().plus_ms(options_.read_timeout_ms)};
  batch.leader_only = batch.confirm_only = true;
  batch.dones.push_back(
      [this, answer = std::move(answer), done = std::move(done)](Result<machine::GroupView> view) mutable {
        if (!view) return done(std::unexpected(view.error()));
        if (!leases_loaded_) return done(std::unexpected(not_leader()));
        done(answer());
      });
  ask_core(std::move(batch), false);
}

}  // namespace uccp::node
