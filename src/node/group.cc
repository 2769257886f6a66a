#include "node/group.h"

#include <algorithm>

#include "base/check.h"
#include "base/log.h"

namespace uccp::node {
namespace {

constexpr size_t kExpiriesPerTick = 1000;

Status not_leader(NodeId leader) {
  Status status(Code::kNotLeader, "NOT_LEADER",
                leader ? "node " + std::to_string(leader.value) + " leads this group" : "the group has no leader yet");
  if (leader) status = std::move(status).with_leader_hint(std::to_string(leader.value));
  return std::move(status).with_retry_after_ms(100);
}

Status shutting_down() { return Status(Code::kUnavailable, "SHUTTING_DOWN", "this node is shutting down"); }

}  // namespace

Group::Group(GroupId id, std::string name, GroupOptions options, GroupEnvironment environment, storage::Kv& kv,
             std::vector<machine::Domain*> domains)
    : id_(id), name_(std::move(name)), options_(options), env_(std::move(environment)),
      machine_(id, kv, std::move(domains)), cache_(options.log_cache_bytes),
      propose_seconds_(env_.metrics.histogram("uccp_raft_commit_seconds", "Time from proposal to applied result",
                                              {{"group", name_}})),
      apply_seconds_(env_.metrics.histogram("uccp_raft_apply_seconds", "Time to apply one batch of entries",
                                            {{"group", name_}})) {}

Status Group::open(const std::vector<NodeId>& founders, uint64_t seed) {
  UCCP_RETURN_IF_ERROR(machine_.open());
  UCCP_TRY(storage::GroupLog log, env_.log.load(id_));
  if (machine_.applied() < log.start.index || log.last.index < machine_.applied()) {
    return Status(Code::kCorruption, "STATE_LOG_MISMATCH",
                  "the state of group " + name_ + " is at index " + std::to_string(machine_.applied().value) +
                      " and its log holds (" + std::to_string(log.start.index.value) + ", " +
                      std::to_string(log.last.index.value) + "]; one of them is from elsewhere. Restore a backup");
  }
  cache_.reset(log.start);
  raft::Membership membership;
  membership.voters.insert(founders.begin(), founders.end());
  // Terms of what is applied already come from the store by bisection of its runs; what is left to apply is read whole.
  for (LogIndex at = log.start.index.next(); at <= machine_.applied();) {
    UCCP_TRY(Term term, env_.log.term(id_, at));
    cache_.add_term_run(at, term);
    LogIndex low = at, high = machine_.applied();
    while (low < high) {
      const LogIndex middle(low.value + (high.value - low.value + 1) / 2);
      UCCP_TRY(Term other, env_.log.term(id_, middle));
      if (other == term) low = middle;
      else high = middle.prev();
    }
    at = low.next();
  }
  cache_.set_last(machine_.applied());
  for (LogIndex at = machine_.applied().next(); at <= log.last.index;) {
    UCCP_TRY(auto entries, env_.log.read(id_, at, log.last.index.next(), 4u << 20));
    cache_.append(entries);
    at = entries.back().index.next();
  }
  cache_.release(machine_.applied());
  HardState hard = log.hard_state;
  hard.commit = std::max(hard.commit, machine_.applied());
  commit_ = hard.commit;
  flushed_at_ = machine_.applied();
  const raft::Initial initial{hard, membership, log.start, log.last, machine_.applied()};
  core_ = std::make_unique<raft::Core>(options_.raft, initial, cache_, seed);
  env_.publish(id_, machine_.view());
  return Status::ok();
}

void Group::tick() {
  if (closed_) return;
  step(raft::Tick{});
  // A group of one needs no election timeout: nobody else could lead.
  if (core_->role() == raft::Role::kFollower && core_->membership().voters.size() == 1 &&
      core_->membership().voters.contains(options_.raft.id)) {
    step(raft::Campaign{});
  }
  expire_leases();
  compact_if_due();
}

void Group::receive(raft::Message message) {
  if (!closed_) step(raft::Receive{std::move(message)});
}

void Group::propose(machine::Envelope envelope, machine::Proposer::Done done) {
  if (closed_) return done(std::unexpected(shutting_down()));
  const size_t in_flight = waiting_.size() + pending_.size() + proposed_.size();
  if (in_flight >= options_.proposals_in_flight_max || bytes_in_flight_ >= options_.proposal_bytes_in_flight_max) {
    return done(fail(Status(Code::kExhausted, "OVERLOADED",
                            "group " + name_ + " has " + std::to_string(in_flight) +
                                " changes under way; nothing was done, retry later")
                         .with_retry_after_ms(100)));
  }
  envelope.boot = env_.clock.boot();
  envelope.wall = env_.clock.wall();
  envelope.feature_level = machine_.feature_level();
  std::string data = machine::encode_envelope(envelope);
  if (data.size() > limits::kCommandBytesMax) {
    return done(fail(Code::kInvalid, "COMMAND_TOO_LARGE",
                     "the change has " + std::to_string(data.size()) + " bytes; at most " +
                         std::to_string(limits::kCommandBytesMax) + " go through the log"));
  }
  const size_t bytes = data.size();
  bytes_in_flight_ += bytes;
  pending_.push_back({std::move(data), bytes, std::move(done)});
  if (std::exchange(flush_scheduled_, true)) return;
  env_.loop.post([this] { flush_proposals(); });
}

void Group::flush_proposals() {
  flush_scheduled_ = false;
  if (pending_.empty()) return;
  raft::Propose event{next_token_++, {}};
  for (Pending& p : pending_) event.commands.push_back(std::move(p.data));
  proposed_[event.token] = std::move(pending_);
  pending_.clear();
  step(std::move(event));
}

void Group::step(raft::Event event) {
  raft::Outputs out;
  core_->step(std::move(event), out);
  for (raft::Message& message : out.messages) env_.send(message.to, std::move(message));
  take_accepted(out);
  take_refused(out);
  if (!out.persist.empty()) persist(std::move(out.persist));
  take_reads(out);
  if (out.commit) {
    commit_ = std::max(commit_, *out.commit);
    if (!std::exchange(apply_scheduled_, true)) env_.loop.post([this] { apply_committed(); });
  }
  if (out.state_changed) check_leadership();
}

void Group::persist(raft::Persist persist) {
  cache_.append(persist.entries);
  env_.disk.submit({.group = id_,
                    .hard_state = persist.hard_state,
                    .entries = std::move(persist.entries),
                    .done = [this, sequence = persist.sequence, messages = std::move(persist.messages)]() mutable {
                      if (closed_) return;
                      for (raft::Message& message : messages) env_.send(message.to, std::move(message));
                      step(raft::Persisted{sequence});
                    }});
}

void Group::take_accepted(const raft::Outputs& out) {
  for (const raft::Accepted& accepted : out.accepted) {
    auto node = proposed_.extract(accepted.token);
    if (node.empty()) continue;
    LogIndex index = accepted.first.index;
    for (Pending& p : node.mapped()) {
      waiting_[index] = {accepted.first.term, p.bytes, env_.clock.boot(), std::move(p.done)};
      index = index.next();
    }
  }
}

void Group::take_refused(raft::Outputs& out) {
  for (raft::Refused& refused : out.refused) {
    if (auto read = read_tokens_.extract(refused.token); !read.empty()) {
      read.mapped()(std::unexpected(refused.status));
      continue;
    }
    auto node = proposed_.extract(refused.token);
    if (node.empty()) continue;
    for (Pending& p : node.mapped()) {
      bytes_in_flight_ -= p.bytes;
      p.done(std::unexpected(refused.status));
    }
  }
}

void Group::take_reads(raft::Outputs& out) {
  for (const raft::ReadReady& ready : out.reads) {
    auto node = read_tokens_.extract(ready.token);
    if (!node.empty()) reads_.emplace(ready.index, std::move(node.mapped()));
  }
  if (!out.reads.empty()) serve_reads();
}

void Group::apply_committed() {
  apply_scheduled_ = false;
  if (closed_ || machine_.applied() >= commit_) return;
  const LogIndex from = machine_.applied().next();
  const LogIndex to(std::min(commit_.value, machine_.applied().value + options_.apply_entries_max) + 1);
  auto entries = cache_.entries(from, to, UINT64_MAX);
  UCCP_CHECK(entries.has_value() && !entries->empty(), "entries that are not applied yet stay in memory");
  const BootTime start = env_.clock.boot();
  auto batch = machine_.apply(*entries);
  if (!batch) return env_.fatal(batch.error());
  apply_seconds_.observe(static_cast<double>(env_.clock.boot().us - start.us) / 1e6);
  cache_.release(machine_.applied());
  env_.publish(id_, machine_.view());
  step(raft::Applied{machine_.applied()});
  check_leadership();
  finish_applied(std::move(*batch));
  if (machine_.applied() < commit_ && !std::exchange(apply_scheduled_, true)) {
    env_.loop.post([this] { apply_committed(); });
  }
}

void Group::finish_applied(machine::AppliedBatch batch) {
  const BootTime now = env_.clock.boot();
  if (leases_loaded_) {
    for (const auto& change : batch.leases) {
      if (change.ttl_ms < 0) leases_.erase(change.lease);
      else leases_.set(change.lease, change.generation, change.ttl_ms, now);
    }
  }
  env_.changes.publish(id_, std::move(batch.changes));
  for (machine::EntryResult& result : batch.results) {
    auto node = waiting_.extract(result.index);
    if (node.empty()) continue;
    bytes_in_flight_ -= node.mapped().bytes;
    propose_seconds_.observe(static_cast<double>(now.us - node.mapped().since.us) / 1e6);
    if (!result.result) node.mapped().done(std::unexpected(std::move(result.result.error())));
    else node.mapped().done(machine::Applied{result.index, std::move(*result.result)});
  }
  serve_reads();
}

void Group::read(const machine::ReadLevel& level, machine::Reader::Done done) {
  if (closed_) return done(std::unexpected(shutting_down()));
  if (level.kind == machine::ReadLevel::Kind::kSession) {
    const auto it = level.token.find(id_);
    reads_.emplace(it == level.token.end() ? LogIndex(0) : it->second, std::move(done));
    return serve_reads();
  }
  const uint64_t token = next_token_++;
  read_tokens_[token] = std::move(done);
  step(raft::ReadIndex{token, level.kind == machine::ReadLevel::Kind::kLease});
}

void Group::serve_reads() {
  while (!reads_.empty() && reads_.begin()->first <= machine_.applied()) {
    auto node = reads_.extract(reads_.begin());
    node.mapped()(machine_.view());
  }
}

void Group::keep_alive(machine::LeaseId lease, machine::Leases::Done done) {
  // Renewed only after leadership was confirmed later than the keep-alive came in.
  read(machine::ReadLevel::linearizable(), [this, lease, done = std::move(done)](Result<machine::GroupView> view) mutable {
    if (!view) return done(std::unexpected(view.error()));
    if (!leases_loaded_) return done(std::unexpected(not_leader(core_->leader())));
    done(leases_.renew(lease, env_.clock.boot()));
  });
}

void Group::check_leadership() {
  const bool now_ready = ready();
  if (now_ready == was_ready_) return;
  was_ready_ = now_ready;
  leases_.clear();
  leases_loaded_ = now_ready;
  if (now_ready) {
    // Heartbeats of the last leader are not known here: every lease gets its whole ttl again.
    for (const auto& [id, lease] : machine_.leases()) leases_.set(id, lease.generation, lease.ttl_ms, env_.clock.boot());
  } else {
    fail_waiting(Status(Code::kOutcomeUnknown, "LEADERSHIP_LOST",
                        "this node stopped leading while the change was under way; it may have happened"));
  }
  log::info(now_ready ? "leading" : "no longer leading",
            {{"group", name_}, {"term", core_->term().value}, {"applied", machine_.applied().value},
             {"leases", leases_.size()}});
  if (on_leadership_) on_leadership_(now_ready, core_->term());
}

void Group::expire_leases() {
  if (!leases_loaded_) return;
  for (const LeaseKeeper::Due& due : leases_.take_due(env_.clock.boot(), kExpiriesPerTick)) {
    machine::Envelope envelope;
    envelope.command = "machine.expire";
    envelope.principal = "system";
    envelope.payload = machine::encode_expire(due.lease, due.generation, core_->term());
    propose(std::move(envelope), [this, due](Result<machine::Applied> applied) {
      if (!applied && leases_loaded_) leases_.retry(due, env_.clock.boot());
    });
  }
}

void Group::compact_if_due() {
  if (flushing_ || machine_.applied().value < flushed_at_.value + options_.flush_every_entries) return;
  flush([] {});
}

void Group::flush(std::move_only_function<void()> done) {
  if (flushing_) return done();
  flushing_ = true;
  const LogIndex applied = machine_.applied();
  const uint64_t keep = options_.log_kept_entries;
  LogPosition position;
  position.index = LogIndex(applied.value > keep ? applied.value - keep : 0);
  if (auto term = cache_.term(position.index)) position.term = *term;
  else position.index = LogIndex(0);
  auto finished = [this, applied, position, done = std::move(done)]() mutable {
    flushing_ = false;
    flushed_at_ = applied;
    if (position.index) {
      cache_.compact(position);
      if (!closed_) step(raft::Compacted{position});
    }
    done();
  };
  env_.disk.flush_and_compact(id_, position, std::move(finished));
}

void Group::fail_waiting(const Status& status) {
  auto waiting = std::move(waiting_);
  waiting_.clear();
  for (auto& [index, entry] : waiting) {
    bytes_in_flight_ -= entry.bytes;
    entry.done(std::unexpected(status));
  }
}

void Group::close() {
  closed_ = true;
  for (Pending& p : std::exchange(pending_, {})) p.done(std::unexpected(shutting_down()));
  for (auto& [token, list] : std::exchange(proposed_, {})) {
    for (Pending& p : list) p.done(std::unexpected(shutting_down()));
  }
  fail_waiting(Status(Code::kOutcomeUnknown, "SHUTTING_DOWN",
                      "this node stopped while the change was under way; it may have happened"));
  for (auto& [token, done] : std::exchange(read_tokens_, {})) done(std::unexpected(shutting_down()));
  for (auto& [index, done] : std::exchange(reads_, {})) done(std::unexpected(shutting_down()));
}

GroupStatus Group::status() const {
  return {core_->leader(), core_->term(), core_->commit(), machine_.applied(), core_->last().index,
          core_->role(),   core_->membership(), machine_.digest()};
}

}  // namespace uccp::node
