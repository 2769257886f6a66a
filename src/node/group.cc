#include "node/group.h"

#include <algorithm>

#include "base/check.h"
#include "base/log.h"

namespace uccp::node {
namespace {

constexpr size_t kExpiriesPerTick = 1000;
// With this many changes under way, the oldest of them this old, further ones are refused.
constexpr size_t kLateProposalsMin = 256;
constexpr int64_t kLateProposalMs = 500;
constexpr std::string_view kSystemPrincipal = "system";

constexpr uint64_t kFetchBytes = 4u << 20;

Status shutting_down() { return Status(Code::kUnavailable, "SHUTTING_DOWN", "this node is shutting down"); }

}  // namespace

Group::Group(GroupId id, std::string name, GroupOptions options, GroupEnvironment environment, storage::Kv& kv,
             std::vector<machine::Domain*> domains)
    : id_(id),
      name_(std::move(name)),
      options_(options),
      env_(std::move(environment)),
      machine_(id, kv, std::move(domains)),
      kv_(kv),
      admission_({.entries_max = options.proposals_in_flight_max,
                  .bytes_max = options.proposal_bytes_in_flight_max,
                  .system_reserve_percent = options.system_reserve_percent}),
      cache_(options.log_cache_bytes),
      packing_(options.compression, env_.metrics),
      sender_(sender_environment()),
      receiver_(receiver_environment()),
      propose_seconds_(env_.metrics.histogram("uccp_raft_commit_seconds", "Time from proposal to applied result",
                                              {{"group", name_}})),
      apply_seconds_(env_.metrics.histogram("uccp_raft_apply_seconds", "Time to apply one batch of entries",
                                            {{"group", name_}})) {}

Status Group::open(const std::vector<NodeId>& founders, uint64_t seed) {
  machine_.on_spare_slot([this] { receiver_.give_way(); });
  UCCP_RETURN_IF_ERROR(machine_.open());
  UCCP_TRY(storage::GroupLog log, env_.log.load(id_));
  UCCP_RETURN_IF_ERROR(open_log(log));
  if (machine_.membership().empty() && !founders.empty()) {
    raft::Membership founding;
    founding.voters.insert(founders.begin(), founders.end());
    UCCP_RETURN_IF_ERROR(machine_.found(raft::encode_membership(founding)));
    UCCP_RETURN_IF_ERROR(kv_.flush());
  }
  raft::Initial initial{log.hard_state, {}, log.start, log.last, machine_.applied(), {}};
  if (!machine_.membership().empty()) {
    UCCP_TRY(initial.membership, raft::decode_membership(machine_.membership()));
  }
  UCCP_RETURN_IF_ERROR(load_terms(log));
  for (LogIndex at = machine_.applied().next(); at <= log.last.index;) {
    UCCP_TRY(auto entries, env_.log.read(id_, at, log.last.index.next(), kFetchBytes));
    cache_.append(entries);
    at = entries.back().index.next();
    for (const Entry& entry : entries) {
      if (entry.kind == EntryKind::kConfiguration) initial.configurations.push_back(entry);
    }
  }
  cache_.release(machine_.applied());
  commit_ = flushed_at_ = machine_.applied();
  // An answer to what was asked before this start must not be taken for one to what is asked now.
  next_token_ = env_.random.next() >> 2 | 1;
  options_.raft.lease_reads = options_.raft.lease_reads && options_.raft.check_quorum;
  options_.raft.followers_wait = options_.follower_delay_ms > 0;
  core_ = std::make_unique<raft::Core>(options_.raft, initial, cache_, seed);
  env_.publish(id_, machine_.view());
  note_state_change();
  return Status::ok();
}

// Log and state have to meet: a log that does not hold the applied entry is right only if a crash came between the
// installation of a snapshot and the new start of the log.
Status Group::open_log(storage::GroupLog& log) {
  const LogPosition applied{machine_.applied_term(), machine_.applied()};
  bool meet = log.start.index <= applied.index && applied.index <= log.last.index;
  if (meet && applied.index) {
    UCCP_TRY(const Term term, env_.log.term(id_, applied.index));
    meet = term == applied.term;
  }
  if (meet) return Status::ok();
  if (applied.index && machine_.installed() == applied) {
    UCCP_RETURN_IF_ERROR(env_.log.truncate_before(id_, applied));
    UCCP_RETURN_IF_ERROR(env_.log.sync());
    UCCP_TRY(log, env_.log.load(id_));
    return Status::ok();
  }
  return Status(Code::kCorruption, "STATE_LOG_MISMATCH",
                "the state of group " + name_ + " is at index " + std::to_string(machine_.applied().value) +
                    " and its log holds (" + std::to_string(log.start.index.value) + ", " +
                    std::to_string(log.last.index.value) + "]; one of them is from elsewhere. Restore a backup");
}

// Terms of what is applied already come from the store by bisection of its runs; what is left to apply is read whole.
Status Group::load_terms(const storage::GroupLog& log) {
  cache_.reset(log.start);
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
  tick_reads();
  tick_requests();
  sender_.tick();
  receiver_.tick();
}

Status Group::not_leader() const {
  const NodeId leader = core_->leader();
  Status status(Code::kNotLeader, "NOT_LEADER",
                leader ? "node " + std::to_string(leader.value) + " leads this group" : "the group has no leader yet");
  if (leader) status = std::move(status).with_leader_hint(std::to_string(leader.value));
  return std::move(status).with_retry_after_ms(100);
}

void Group::propose(machine::Envelope envelope, machine::Proposer::Done done) {
  if (closed_) return done(std::unexpected(shutting_down()));
  if (read_only_) {
    return done(fail(Status(Code::kFailedPrecondition, "GROUP_READ_ONLY",
                            "the replicas of group " + name_ + " differ and none has a majority; nothing was done")
                         .with_help("runbooks.md#digest-mismatch")));
  }
  // What waits longer than this is likely to be given up by its caller before it is done.
  const bool late = waiting_.size() >= kLateProposalsMin &&
                    env_.clock.boot().ms_since(waiting_.begin()->second.since) > kLateProposalMs;
  const bool system = envelope.principal == kSystemPrincipal;
  auto room = admission_.admit(system ? "" : envelope.scope.tenant, envelope.payload.size(), late);
  if (!room) {
    return done(fail(Status(Code::kExhausted, "OVERLOADED",
                            "group " + name_ + " has " + std::to_string(admission_.entries()) +
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
  // Where nobody else gets it, the log packs it on its own thread.
  auto packed = packs_entries() && !sole_voter() ? packing_.pack(data) : nullptr;
  pending_bytes_ += data.size();
  pending_.push_back({std::move(data), std::move(packed), std::move(*room), std::move(done)});
  if (std::exchange(flush_scheduled_, true)) return;
  env_.loop.post([this] { flush_proposals(); });
}

void Group::flush_proposals() {
  flush_scheduled_ = false;
  if (pending_.empty()) return;
  // One batch a sync of this log: what comes meanwhile goes on with the next one. Sending each turn's proposals at once
  // would cost the followers a frame and wake-ups each, and they would wait for their own sync all the same.
  if (writes_under_way_ >= options_.writes_under_way_max && pending_bytes_ < options_.raft.append_bytes_max) return;
  raft::Propose event{next_token_++, {}};
  for (Pending& p : pending_) event.commands.push_back({std::move(p.data), std::move(p.packed)});
  proposed_[event.token] = std::move(pending_);
  pending_.clear();
  pending_bytes_ = 0;
  step(std::move(event));
}

void Group::step(raft::Event event) {
  raft::Outputs out;
  core_->step(std::move(event), out);
  for (const raft::Message& message : out.messages) send_raft(message);
  if (!out.persist.empty()) persist(std::move(out.persist));
  take_accepted(out);
  take_refused(out);
  for (const raft::ReadReady& ready : out.reads) read_confirmed(ready.token, ready.index);
  if (!out.reads.empty()) serve_reads();
  if (out.commit) {
    commit_ = std::max(commit_, *out.commit);
    schedule_apply();
  }
  for (NodeId peer : out.snapshots_wanted) {
    // Not from within a step: it steps the core itself.
    env_.loop.post([this, peer] {
      if (!closed_ && leads()) offer_snapshot(peer);
    });
  }
  if (out.install_snapshot) receiver_.begin(core_->leader(), *out.install_snapshot);
  if (out.followers_wait) catch_up_soon();
  fetch_wanted();
  if (out.state_changed) note_state_change();
}

void Group::schedule_apply() {
  if (installing_ || machine_.applied() >= commit_ || std::exchange(apply_scheduled_, true)) return;
  env_.loop.post([this] { apply_committed(); });
}

// A slow follower needs entries that left memory.
void Group::fetch_wanted() {
  const auto from = cache_.take_wanted();
  if (!from || std::exchange(fetching_, true)) return;
  auto entries = std::make_shared<std::vector<Entry>>();
  env_.disk.run(
      [this, from = *from, to = machine_.applied().next(), entries]() -> Status {
        // An error means that the log was shortened meanwhile, and the follower will get a snapshot.
        if (auto read = env_.log.read(id_, from, to, kFetchBytes)) *entries = std::move(*read);
        return Status::ok();
      },
      [this, entries] {
        fetching_ = false;
        cache_.add_fetched(std::move(*entries));
      });
}

void Group::persist(raft::Persist persist) {
  if (persist.log_start) cache_.reset(*persist.log_start);
  cache_.append(persist.entries);
  log_bytes_.append(persist.entries);
  ++writes_under_way_;
  env_.disk.submit({.group = id_,
                    .hard_state = persist.hard_state,
                    .log_start = persist.log_start,
                    .entries = std::move(persist.entries),
                    .done = [this, sequence = persist.sequence, messages = std::move(persist.messages)] {
                      --writes_under_way_;
                      if (closed_) return;
                      for (const raft::Message& message : messages) send_raft(message);
                      step(raft::Persisted{sequence});
                      if (!flush_scheduled_) flush_proposals();
                    }});
}

void Group::take_accepted(const raft::Outputs& out) {
  for (const raft::Accepted& accepted : out.accepted) {
    auto node = proposed_.extract(accepted.token);
    if (node.empty()) continue;
    LogIndex index = accepted.first.index;
    for (Pending& p : node.mapped()) {
      waiting_[index] = {accepted.first.term, std::move(p.room), env_.clock.boot(), std::move(p.done)};
      index = index.next();
    }
  }
}

void Group::take_refused(raft::Outputs& out) {
  for (raft::Refused& refused : out.refused) {
    if (read_refused(refused.token, refused.status)) continue;
    if (transfers_.contains(refused.token)) {
      finish_transfer(std::unexpected(refused.status));
      continue;
    }
    auto node = proposed_.extract(refused.token);
    if (node.empty()) continue;
    for (Pending& p : node.mapped()) {
      p.room = {};
      p.done(std::unexpected(refused.status));
    }
  }
}

void Group::apply_committed() {
  apply_scheduled_ = false;
  if (closed_ || installing_ || machine_.applied() >= commit_) return;
  const LogIndex from = machine_.applied().next();
  // Digests are compared between batches.
  const uint64_t every = options_.digest_every_entries;
  const uint64_t boundary = (machine_.applied().value / every + 1) * every;
  const LogIndex to(std::min({commit_.value, machine_.applied().value + options_.apply_entries_max, boundary}) + 1);
  auto entries = cache_.entries(from, to, UINT64_MAX);
  UCCP_CHECK(entries.has_value() && !entries->empty(), "entries that are not applied yet stay in memory");
  const BootTime start = env_.clock.boot();
  auto batch = machine_.apply(*entries);
  if (!batch) return env_.fatal(batch.error());
  apply_seconds_.observe(static_cast<double>(env_.clock.boot().us - start.us) / 1e6);
  cache_.release(machine_.applied());
  if (core_->leader() && machine_.applied() >= commit_) caught_up_ = true;
  env_.publish(id_, machine_.view());
  step(raft::Applied{machine_.applied()});
  if (batch->replaced) begin_anew();
  check_leadership();
  finish_applied(std::move(*batch));
  if (machine_.applied().value % every == 0) compare_digest();
  schedule_apply();
}

// The state was replaced by one of a backup. Whoever knew something of the old one has to ask again: this node starts
// to lead once more, as far as its services and leases are concerned.
void Group::begin_anew() {
  digests_.clear();
  env_.changes.resync(id_);
  leases_.clear();
  leases_loaded_ = false;
  if (std::exchange(was_ready_, false) && on_leadership_) on_leadership_(false, core_->term());
  flush([] {});
}

void Group::finish_applied(machine::AppliedBatch batch) {
  const BootTime now = env_.clock.boot();
  if (leases_loaded_) {
    for (const auto& change : batch.leases) {
      if (change.ttl_ms < 0) leases_.erase(change.lease);
      else leases_.set(change.lease, change.generation, change.ttl_ms, now);
    }
  }
  for (machine::EntryResult& result : batch.results) {
    auto node = waiting_.extract(result.index);
    if (node.empty()) continue;
    node.mapped().room = {};
    propose_seconds_.observe(static_cast<double>(now.us - node.mapped().since.us) / 1e6);
    if (!result.result) node.mapped().done(std::unexpected(std::move(result.result.error())));
    else node.mapped().done(machine::Applied{result.index, std::move(*result.result)});
  }
  // Behind the answers, which somebody waits for; the thread that watchers are told on would take its core from them.
  env_.changes.publish(id_, std::move(batch.changes));
  serve_reads();
}

bool Group::serving() const {
  if (leads()) return ready();
  // One that has caught up serves while it applies what comes: it is always an entry or two behind.
  return core_->leader() && (caught_up_ || machine_.applied() >= std::min(commit_, core_->commit()));
}

void Group::note_state_change() {
  if (!core_->leader()) caught_up_ = false;
  if (!leads()) {
    sender_.clear();
    finish_transfer(LogIndex());
    if (!was_ready_) {
      fail_waiting(Status(Code::kOutcomeUnknown, "LEADERSHIP_LOST",
                          "this node stopped leading while the change was under way; it may have happened"));
    }
  }
  check_leadership();
  if (core_->membership() != told_membership_) {
    told_membership_ = core_->membership();
    env_.on_membership(id_, told_membership_);
  }
  ask_leader();
}

void Group::check_leadership() {
  const bool now_ready = ready();
  if (now_ready == was_ready_) return;
  was_ready_ = now_ready;
  leases_.clear();
  leases_loaded_ = now_ready;
  if (now_ready) {
    // Heartbeats of the last leader are not known here: every lease gets its whole ttl again.
    for (const auto& [id, lease] : machine_.leases())
      leases_.set(id, lease.generation, lease.ttl_ms, env_.clock.boot());
  } else {
    fail_waiting(Status(Code::kOutcomeUnknown, "LEADERSHIP_LOST",
                        "this node stopped leading while the change was under way; it may have happened"));
  }
  log::info(now_ready ? "leading" : "no longer leading", {{"group", name_},
                                                          {"term", core_->term().value},
                                                          {"applied", machine_.applied().value},
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
  const bool due = machine_.applied().value >= flushed_at_.value + options_.flush_every_entries ||
                   log_bytes_.total() >= flushed_at_bytes_ + options_.flush_every_bytes;
  if (!flushing_ && due) flush([] {});
}

void Group::shorten_log() {
  if (closed_ || flushing_) return;
  flush(options_.shortened_log_bytes, [] {});
}

void Group::flush(uint64_t kept_bytes, std::move_only_function<void()> done) {
  if (flushing_) return done();
  flushing_ = true;
  const LogIndex applied = machine_.applied();
  const uint64_t keep = options_.log_kept_entries;
  LogPosition position;
  position.index = LogIndex(applied.value > keep ? applied.value - keep : 0);
  position.index = std::max(position.index, std::min(applied, log_bytes_.last_beyond(kept_bytes)));
  if (env_.log_floor) {
    // What the state needs is judged by the state as of now; what it needs after a crash is no older.
    const LogIndex floor = env_.log_floor(machine_.view(), history_begin());
    if (floor) position.index = std::min(position.index, floor.prev());
  }
  // A follower that installs a snapshot goes on from its position.
  if (!sender_.idle()) position.index = std::min(position.index, sender_.oldest());
  if (auto term = cache_.term(position.index)) position.term = *term;
  else position.index = LogIndex(0);
  auto finished = [this, applied, position, bytes = log_bytes_.total(), done = std::move(done)]() mutable {
    flushing_ = false;
    flushed_at_ = applied;
    flushed_at_bytes_ = bytes;
    if (position.index) {
      log_bytes_.drop_before(position.index);
      cache_.compact(position);
      if (!closed_) step(raft::Compacted{position});
    }
    drop_kept();
    done();
  };
  env_.disk.flush_and_compact(id_, position, std::move(finished));
}

// Of what is committed already the result is still to come.
void Group::fail_waiting(const Status& status) {
  std::map<LogIndex, Waiting> waiting;
  const auto first = closed_ ? waiting_.begin() : waiting_.upper_bound(core_->commit());
  for (auto it = first; it != waiting_.end();) waiting.insert(waiting_.extract(it++));
  for (auto& [index, entry] : waiting) {
    entry.room = {};
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
  close_reads();
  close_requests();
  sender_.clear();
}

GroupStatus Group::status() const {
  return {core_->leader(),     core_->term(), core_->commit(),         machine_.applied(),
          core_->last().index, core_->role(), core_->membership(),     machine_.digest(),
          core_->match(),      read_only_,    machine_.feature_level()};
}

}  // namespace uccp::node
