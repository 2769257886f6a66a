#include "machine/machine.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/check.h"
#include "machine/dedup.h"
#include "machine/kept_entries.h"
#include "machine/planted.h"
#include "machine/restore.h"
#include "machine/table.h"

namespace uccp::machine {
namespace {

constexpr BytesTable kMeta(kMetaTable);
constexpr BytesTable kLeases(kLeaseTable);
constexpr BytesTable kChanges(kChangeTable);
constexpr BytesTable kAudit(kAuditTable);
constexpr std::string_view kMetaKey = "meta";
constexpr std::string_view kMembershipKey = "membership";
constexpr uint8_t kMetaVersion = 1;
constexpr uint8_t kSlotVersion = 1;
// Old replies are dropped at every index that this divides.
constexpr uint64_t kForgetEvery = 64;

std::string number_key(uint64_t number) { return ByteWriter().u64(number).take(); }
std::string number_row(TableId table, uint64_t number) { return table_key::make(table, {}, number_key(number)); }

// Drops the oldest of numbered rows when there are more than `kept`, `count` at a time: one scan reads many of them for
// the price of a few look-ups.
void trim(Transaction& state, TableId table, uint64_t& first, uint64_t next, size_t kept, uint64_t count) {
  for (; next - first >= kept + count; first += count) {
    std::vector<std::pair<std::string, std::string>> rows;
    const std::string end = number_row(table, first + count);
    state.scan(number_row(table, first), end, [&](std::string_view key, std::string_view row) {
      rows.emplace_back(key, row);
      return true;
    });
    for (auto& [key, row] : rows) state.replace(key, std::move(row), std::nullopt);
  }
}

// A row under a number that nobody had before: there is nothing to read.
void put_new(Transaction& state, TableId table, uint64_t number, std::string value) {
  state.replace(number_row(table, number), std::nullopt, std::move(value));
}

std::string encode_lease(const LeaseRecord& lease) {
  ByteWriter out;
  out.u64(lease.generation).u64(static_cast<uint64_t>(lease.ttl_ms)).bytes(lease.domain);
  return out.bytes(lease.scope.tenant).bytes(lease.scope.name_space).bytes(lease.key).take();
}

LeaseRecord decode_lease(std::string_view data) {
  ByteReader in(data);
  LeaseRecord lease;
  lease.generation = in.u64();
  lease.ttl_ms = static_cast<int64_t>(in.u64());
  lease.domain = in.bytes();
  lease.scope.tenant = in.bytes();
  lease.scope.name_space = in.bytes();
  lease.key = in.bytes();
  UCCP_CHECK(in.at_end(), "a stored lease is readable");
  return lease;
}

std::string encode_change(const Change& change) {
  ByteWriter out;
  out.u64(change.index.value).varint(change.sequence).bytes(change.topic).bytes(change.scope.tenant);
  out.bytes(change.scope.name_space).bytes(change.key).u8(change.kind).bytes(change.payload);
  return out.take();
}

Change decode_change(std::string_view data) {
  ByteReader in(data);
  Change change;
  change.index = LogIndex(in.u64());
  change.sequence = static_cast<uint32_t>(in.varint());
  change.topic = in.bytes();
  change.scope.tenant = in.bytes();
  change.scope.name_space = in.bytes();
  change.key = in.bytes();
  change.kind = in.u8();
  change.payload = in.bytes();
  UCCP_CHECK(in.at_end(), "a stored change is readable");
  return change;
}

// Number of the oldest change that is left, and the index up to which some may have been dropped.
std::pair<uint64_t, LogIndex> oldest_change(const KeyReader& state) {
  std::pair<uint64_t, LogIndex> oldest;
  kChanges.scan(state, {}, "", "", [&](std::string_view key, std::string_view value) {
    oldest.first = ByteReader(key).u64();
    if (oldest.first > 0) oldest.second = LogIndex(ByteReader(value).u64() - 1);
    return false;
  });
  return oldest;
}

}  // namespace

// One entry's view of the machine while it is applied.
class EntryContext final : public ApplyContext {
 public:
  EntryContext(Machine& machine, Transaction& state, const Entry& entry, const Envelope& envelope)
      : machine_(machine), state_(state), entry_(entry), envelope_(envelope) {}

  Transaction& state() override { return state_; }
  const Envelope& envelope() const override { return envelope_; }
  LogIndex index() const override { return entry_.index; }
  Term term() const override { return entry_.term; }
  int64_t now_ms() const override { return machine_.machine_time_ms(); }

  void emit(std::string_view topic, std::string_view key, uint8_t kind, std::string payload) override {
    emit_in(envelope_.scope, topic, key, kind, std::move(payload));
  }
  void emit_in(const Scope& scope, std::string_view topic, std::string_view key, uint8_t kind,
               std::string payload) override {
    changes.push_back({entry_.index, static_cast<uint32_t>(changes.size()), std::string(topic), scope, std::string(key),
                       kind, std::move(payload)});
  }
  void notify(std::string_view topic, std::string_view key, uint8_t kind, std::string payload) override {
    emit_in(envelope_.scope, topic, key, kind, std::move(payload));
    changes.back().kept = false;
  }

  LeaseId create_lease(std::string_view domain, std::string_view key, int64_t ttl_ms) override {
    const LeaseId id = (entry_.index.value << 16) | leases_created_++;
    UCCP_CHECK(leases_created_ < 0x10000, "one command creates fewer than 65536 leases");
    const LeaseRecord lease{1, ttl_ms, std::string(domain), envelope_.scope, std::string(key)};
    put_new(state_, kLeaseTable, id, encode_lease(lease));
    leases.push_back({id, ttl_ms, 1});
    return id;
  }
  void touch_lease(LeaseId id, int64_t ttl_ms) override {
    const auto stored = kLeases.get(state_, {}, number_key(id));
    if (!stored) return;
    LeaseRecord lease = decode_lease(*stored);
    lease.generation += 1;
    lease.ttl_ms = ttl_ms;
    kLeases.put(state_, {}, number_key(id), encode_lease(lease));
    leases.push_back({id, ttl_ms, lease.generation});
  }
  void delete_lease(LeaseId id) override {
    kLeases.erase(state_, {}, number_key(id));
    leases.push_back({id, -1, 0});
  }

  // Runs `work` with another scope; what it emits and which leases it changes counts here.
  template <typename Work>
  void in_scope(const Scope& scope, Work work) {
    Envelope scoped = envelope_;
    scoped.scope = scope;
    EntryContext inner(machine_, state_, entry_, scoped);
    inner.leases_created_ = leases_created_;
    inner.changes = std::move(changes);
    inner.leases = std::move(leases);
    work(inner);
    changes = std::move(inner.changes);
    leases = std::move(inner.leases);
    leases_created_ = inner.leases_created_;
  }

  std::vector<Change> changes;
  std::vector<AppliedBatch::LeaseChange> leases;

 private:
  Machine& machine_;
  Transaction& state_;
  const Entry& entry_;
  const Envelope& envelope_;
  uint64_t leases_created_ = 0;
};

Transaction& Machine::transaction_of(EntryContext& context) { return context.state(); }

Machine::Machine(GroupId group, storage::Kv& kv, std::vector<Domain*> domains, MachineLimits limits)
    : group_(group), kv_(kv), limits_(limits) {
  for (Domain* domain : domains) {
    UCCP_CHECK(domains_.emplace(domain->name(), domain).second, "two domains have one name");
    for (auto& [verb, function] : domain->commands()) {
      functions_.emplace(std::string(domain->name()) + "." + verb, std::move(function));
    }
  }
}

// Beside the groups, in the range of group 0, which none has: which slot a group's state is in.
std::string Machine::slot_key(GroupId group) { return ByteWriter().u64(0).raw("slot").u64(group.value).take(); }

std::string Machine::encode_slot(StateSlot slot, LogPosition installed) {
  return ByteWriter().u8(kSlotVersion).u8(slot).u64(installed.term.value).u64(installed.index.value).take();
}

std::string Machine::encode_meta(const Meta& m) {
  ByteWriter out;
  out.u8(kMetaVersion).u64(m.applied.value).u64(m.applied_term.value).u64(static_cast<uint64_t>(m.time_us));
  out.u64(m.clock_term.value).u64(static_cast<uint64_t>(m.clock_boot_us)).u32(m.feature_level);
  out.u64(m.digest.high).u64(m.digest.low).u64(m.changes_first).u64(m.changes_next);
  out.u64(m.audit_first).u64(m.audit_next).bytes(m.audit_head);
  return out.take();
}

Result<Machine::Meta> Machine::decode_meta(std::string_view data) {
  ByteReader in(data);
  Meta m;
  const uint8_t version = in.u8();
  m.applied = LogIndex(in.u64());
  m.applied_term = Term(in.u64());
  m.time_us = static_cast<int64_t>(in.u64());
  m.clock_term = Term(in.u64());
  m.clock_boot_us = static_cast<int64_t>(in.u64());
  m.feature_level = in.u32();
  m.digest.high = in.u64();
  m.digest.low = in.u64();
  m.changes_first = in.u64();
  m.changes_next = in.u64();
  m.audit_first = in.u64();
  m.audit_next = in.u64();
  m.audit_head = in.bytes();
  if (version != kMetaVersion || !in.at_end()) {
    return fail(Code::kCorruption, "STATE_META_INVALID", "the state's head record is damaged; restore a backup");
  }
  if (m.feature_level > kFeatureLevelMax) {
    return fail(Code::kUnimplemented, "FEATURE_LEVEL",
                "the state is at feature level " + std::to_string(m.feature_level) + " and this program knows " +
                    std::to_string(kFeatureLevelMax) + "; start a newer version");
  }
  return m;
}

Status Machine::open() {
  UCCP_RETURN_IF_ERROR(read_slot());
  UCCP_RETURN_IF_ERROR(erase_spare_slot());
  const GroupView probe(group_, kv_.view(), LogIndex(0), 0, slot_);
  meta_ = {};
  if (const auto stored = kMeta.get(probe, {}, kMetaKey)) {
    UCCP_TRY(meta_, decode_meta(*stored));
  }
  membership_ = kMeta.get(probe, {}, kMembershipKey).value_or("");
  recent_.clear();
  forget_from_ms_ = 0;
  renew_view();
  for (const auto& [name, domain] : domains_) domain->on_state_opened();
  return Status::ok();
}

void Machine::renew_view() { view_ = GroupView(group_, kv_.view(), meta_.applied, machine_time_ms(), slot_); }

Status Machine::read_slot() {
  slot_ = 0;
  installed_ = {};
  UCCP_TRY(const auto stored, kv_.view()->get(slot_key(group_)));
  if (!stored) return Status::ok();
  ByteReader in(*stored);
  const uint8_t version = in.u8();
  slot_ = in.u8();
  installed_.term = Term(in.u64());
  installed_.index = LogIndex(in.u64());
  if (version == kSlotVersion && slot_ < kStateSlots && in.at_end()) return Status::ok();
  return Status(Code::kCorruption, "STATE_SLOT_INVALID",
                "the pointer to the state of group " + std::to_string(group_.value) + " is damaged; restore a backup");
}

// What an installation left behind, or the state before it.
Status Machine::erase_spare_slot() {
  const std::string prefix = group_prefix(group_, spare_slot());
  const auto view = kv_.view();
  const auto it = view->iterate();
  it->seek(prefix);
  UCCP_RETURN_IF_ERROR(it->status());
  if (!it->valid() || !it->key().starts_with(prefix)) return Status::ok();
  return kv_.erase_range(prefix, prefix_end(prefix));
}

Status Machine::found(std::string membership) {
  UCCP_CHECK(membership_.empty(), "a group is founded once");
  storage::KvBatch batch;
  batch.put(group_prefix(group_, slot_) + table_key::make(kMetaTable, {}, kMembershipKey), membership);
  UCCP_RETURN_IF_ERROR(kv_.write(batch));
  membership_ = std::move(membership);
  renew_view();
  return Status::ok();
}

SnapshotHeader Machine::snapshot_header() const {
  return {group_, {meta_.applied_term, meta_.applied}, membership_, meta_.feature_level, meta_.digest};
}

Status Machine::switch_slot(LogPosition installed) {
  storage::KvBatch batch;
  batch.put(slot_key(group_), encode_slot(spare_slot(), installed));
  return kv_.write(batch);
}

bool in_digest(std::string_view key) {
  static const std::string meta = table_key::begin(kMetaTable).take();
  static const std::string entries = table_key::begin(kEntryTable).take();
  return !key.starts_with(meta) && !key.starts_with(entries);
}

Result<AppliedBatch> Machine::apply(std::span<const Entry> entries) {
  AppliedBatch out;
  Transaction state(view_, recent_, meta_.digest);
  size_t applied = 0;
  for (const Entry& entry : entries) {
    UCCP_CHECK(entry.index == meta_.applied.next(), "entries are applied in order, each once");
    ApplyResult result = std::string();
    if (entry.kind == EntryKind::kCommand) {
      auto envelope = decode_envelope(entry.data);
      UCCP_CHECK(envelope.has_value(), envelope.has_value() ? "" : envelope.error().to_string());
      if (envelope->command == kRestoreCommitCommand) {
        // By itself, on a state that is written.
        if (applied > 0) break;
        UCCP_TRY(auto replaced, apply_replacement(entry, *envelope));
        if (replaced) return std::move(*replaced);
      }
      advance_time(*envelope, entry.term);
      result = apply_command(state, entry, *envelope, out);
    }
    out.results.push_back({entry.index, std::move(result)});
    meta_.applied = entry.index;
    meta_.applied_term = entry.term;
    ++applied;
    if (entry.kind == EntryKind::kConfiguration) membership_ = entry.data;
    if (entry.index.value % kForgetEvery == 0 && machine_time_ms() >= forget_from_ms_) {
      state.begin();
      forget_from_ms_ = dedup::forget_old(state, machine_time_ms(), limits_);
    }
  }
  UCCP_RETURN_IF_ERROR(write_batch(std::move(state), entries.subspan(0, applied)));
  return out;
}

Status Machine::write_batch(Transaction&& state, std::span<const Entry> entries) {
  meta_.digest = state.digest();
  storage::KvBatch batch;
  const std::string prefix = group_prefix(group_, slot_);
  // In the order of keys, as those below.
  const bool reconfigured = std::ranges::count(entries, EntryKind::kConfiguration, &Entry::kind) > 0;
  if (reconfigured) batch.put(prefix + table_key::make(kMetaTable, {}, kMembershipKey), membership_);
  batch.put(prefix + table_key::make(kMetaTable, {}, kMetaKey), encode_meta(meta_));
  for (auto& [key, value] : std::move(state).take_writes()) {
    recent_.update(key, value);
    if (value) batch.put(prefix + key, std::move(*value));
    else batch.erase(prefix + key);
  }
  UCCP_RETURN_IF_ERROR(kv_.write(batch));
  renew_view();
  return {};
}

// None if the state stays: the command then has a result like any other, which apply_command() gives it.
Result<std::optional<AppliedBatch>> Machine::apply_replacement(const Entry& entry, const Envelope& envelope) {
  replace_refused_ = Status();
  UCCP_RETURN_IF_ERROR(replace_state(entry, envelope, replace_refused_));
  if (!replace_refused_.is_ok()) return std::nullopt;
  AppliedBatch out;
  out.replaced = true;
  out.results.push_back({entry.index, std::string()});
  return out;
}

ApplyResult Machine::apply_command(Transaction& state, const Entry& entry, const Envelope& envelope,
                                   AppliedBatch& out) {
  if (auto known = dedup::recall(state, envelope, limits_)) return std::move(*known);
  state.begin();
  EntryContext context(*this, state, entry, envelope);
  ApplyResult result = run(context, envelope);
  if (planted_bug("apply_twice") && entry.index.value % 97 == 0) result = run(context, envelope);
  if (!result) {
    state.rollback();
    context.changes.clear();
    context.leases.clear();
  }
  state.begin();
  dedup::remember(state, envelope, entry.index, machine_time_ms(), result);
  record_changes(state, context.changes);
  if (envelope.audited) {
    record_audit(state, entry, envelope, result);
    context.notify(kAuditTopic, "", 0, "");
  }
  std::move(context.changes.begin(), context.changes.end(), std::back_inserter(out.changes));
  out.leases.insert(out.leases.end(), context.leases.begin(), context.leases.end());
  return result;
}

ApplyResult Machine::run(EntryContext& context, const Envelope& envelope) {
  if (const auto it = functions_.find(envelope.command); it != functions_.end()) {
    return it->second(context, envelope.payload);
  }
  if (envelope.command == "machine.open_session") return open_session(context);
  if (envelope.command == "machine.close_session") return close_session(context);
  if (envelope.command == "machine.expire") return expire_lease(context, envelope.payload);
  if (envelope.command == "machine.set_feature_level") return set_feature_level(envelope.payload);
  if (envelope.command == kRestorePieceCommand) return stage_piece(context, envelope.payload);
  if (envelope.command == kRestoreDropCommand) return drop_pieces(context);
  if (envelope.command == kRestoreCommitCommand) return fail(replace_refused_);
  return fail(Code::kUnimplemented, "COMMAND_UNKNOWN",
              "the command '" + envelope.command + "' is not known to group " + std::to_string(group_.value));
}

void Machine::advance_time(const Envelope& envelope, Term term) {
  // Another leader, or the same one restarted, has another boot clock: its first stamp only sets the origin.
  if (meta_.clock_term == term && envelope.boot.us > meta_.clock_boot_us) {
    meta_.time_us += envelope.boot.us - meta_.clock_boot_us;
  }
  if (meta_.clock_term != term || envelope.boot.us > meta_.clock_boot_us) meta_.clock_boot_us = envelope.boot.us;
  meta_.clock_term = term;
}

uint64_t Machine::trim_count(size_t kept) const {
  return meta_.feature_level < kTrimsManyLevel ? 1 : std::clamp<uint64_t>(kept / 16, 1, 256);
}

void Machine::record_changes(Transaction& state, std::vector<Change>& changes) {
  for (const Change& change : changes) {
    if (change.kept) put_new(state, kChangeTable, meta_.changes_next++, encode_change(change));
  }
  trim(state, kChangeTable, meta_.changes_first, meta_.changes_next, limits_.changes_kept,
       trim_count(limits_.changes_kept));
}

void Machine::record_audit(Transaction& state, const Entry& entry, const Envelope& e, const ApplyResult& result) {
  ByteWriter record;
  record.u64(meta_.audit_next).u64(entry.index.value).u64(static_cast<uint64_t>(e.wall.us));
  record.bytes(e.scope.tenant).bytes(e.scope.name_space).bytes(e.principal).bytes(e.method).bytes(e.resource);
  record.bytes(result ? "ok" : result.error().reason());
  meta_.audit_head = sha256(meta_.audit_head + record.data());
  record.bytes(meta_.audit_head);
  put_new(state, kAuditTable, meta_.audit_next++, record.take());
  trim(state, kAuditTable, meta_.audit_first, meta_.audit_next, limits_.audit_records_kept,
       trim_count(limits_.audit_records_kept));
}

ApplyResult Machine::open_session(EntryContext& context) {
  return dedup::open_session(context.state(), context.envelope(), context.index(), limits_);
}

ApplyResult Machine::close_session(EntryContext& context) {
  return dedup::close_session(context.state(), context.envelope());
}

ApplyResult Machine::expire_lease(EntryContext& context, std::string_view payload) {
  ByteReader in(payload);
  const LeaseId id = in.u64();
  const uint64_t generation = in.u64();
  const Term term(in.u64());
  const auto stored = kLeases.get(context.state(), {}, number_key(id));
  // An expiry counts only if the lease was not touched since and the proposer still leads.
  if (!in.at_end() || !stored || term != context.term()) return std::string();
  const LeaseRecord lease = decode_lease(*stored);
  if (lease.generation != generation && !planted_bug("expire_any_generation")) return std::string();
  context.delete_lease(id);
  const auto domain = domains_.find(lease.domain);
  if (domain == domains_.end()) return std::string();
  // The domain sees the scope in which the lease was made, not that of the system's command.
  context.in_scope(lease.scope, [&](ApplyContext& scoped) { domain->second->on_lease_expired(scoped, id, lease.key); });
  return std::string();
}

ApplyResult Machine::set_feature_level(std::string_view payload) {
  ByteReader in(payload);
  const uint32_t level = in.u32();
  if (!in.at_end() || level > kFeatureLevelMax || level < meta_.feature_level) {
    return fail(Code::kFailedPrecondition, "FEATURE_LEVEL", "feature levels only grow, up to what all members support");
  }
  meta_.feature_level = level;
  return std::string();
}

std::map<LeaseId, LeaseRecord> Machine::leases() const {
  std::map<LeaseId, LeaseRecord> out;
  kLeases.scan(view_, {}, "", "", [&](std::string_view key, std::string_view value) {
    out.emplace(ByteReader(key).u64(), decode_lease(value));
    return true;
  });
  return out;
}

Status Machine::verify_digest() const {
  Digest digest;
  view_.scan("", "", [&](std::string_view key, std::string_view value) {
    if (in_digest(key)) digest.add(key, value);
    return true;
  });
  if (digest == meta_.digest) return Status::ok();
  return Status(Code::kCorruption, "DIGEST_MISMATCH",
                "the state of group " + std::to_string(group_.value) + " has digest " + digest.to_string() +
                    " and should have " + meta_.digest.to_string() + " at index " +
                    std::to_string(meta_.applied.value));
}

std::string encode_feature_level(uint32_t level) { return ByteWriter().u32(level).take(); }

std::string encode_expire(LeaseId lease, uint64_t generation, Term term) {
  return ByteWriter().u64(lease).u64(generation).u64(term.value).take();
}

LogIndex changes_floor(const KeyReader& state) {
  return std::max(oldest_change(state).second, restored_mark(state).index);
}

Result<std::vector<Change>> read_changes(const KeyReader& state, LogIndex since, size_t count_max) {
  std::vector<Change> changes;
  if (const RestoredMark mark = restored_mark(state); since && since < mark.index) {
    return fail(Code::kFailedPrecondition, "CURSOR_COMPACTED",
                "the state was restored from a backup at " + std::to_string(mark.index.value) + ", after the cursor " +
                    std::to_string(since.value) + "; list the resources again and watch from there");
  }
  auto [low, floor] = oldest_change(state);
  if (since < floor) {
    return fail(Code::kFailedPrecondition, "CURSOR_COMPACTED",
                "changes after " + std::to_string(since.value) + " are no longer kept (the oldest is at " +
                    std::to_string(floor.value + 1) + "); list the resources again and watch from there");
  }
  // Records are dense in number and ascending in index: find the first behind `since` by bisection.
  const auto index_at = [&](uint64_t number) -> std::optional<LogIndex> {
    const auto stored = kChanges.get(state, {}, number_key(number));
    return stored ? std::optional(LogIndex(ByteReader(*stored).u64())) : std::nullopt;
  };
  uint64_t step = 1, high = low;
  for (; index_at(high) && *index_at(high) <= since; step *= 2) high += step;
  low = high > step ? std::max(low, high - step) : low;
  while (low < high) {
    const uint64_t middle = low + (high - low) / 2;
    if (const auto index = index_at(middle); index && *index <= since) low = middle + 1;
    else high = middle;
  }
  kChanges.scan(state, {}, "", number_key(low), [&](std::string_view, std::string_view value) {
    Change change = decode_change(value);
    if (changes.size() >= count_max && change.index != changes.back().index) return false;
    changes.push_back(std::move(change));
    return true;
  });
  return changes;
}

std::vector<AuditRecord> read_audit(const KeyReader& state, uint64_t from, size_t count_max) {
  std::vector<AuditRecord> records;
  if (count_max == 0) return records;
  kAudit.scan(state, {}, "", number_key(from), [&](std::string_view, std::string_view value) {
    ByteReader in(value);
    AuditRecord r;
    r.number = in.u64();
    r.index = LogIndex(in.u64());
    r.wall_us = static_cast<int64_t>(in.u64());
    for (std::string* field : {&r.tenant, &r.name_space, &r.principal, &r.method, &r.resource, &r.outcome, &r.hash}) {
      *field = in.bytes();
    }
    records.push_back(std::move(r));
    return records.size() < count_max;
  });
  return records;
}

AuditSpan audit_span(const KeyReader& state) {
  const auto stored = kMeta.get(state, {}, kMetaKey);
  if (!stored) return {};
  const auto meta = Machine::decode_meta(*stored);
  if (!meta) return {};
  return {meta->audit_first, meta->audit_next, meta->audit_head};
}

std::optional<AuditFault> find_audit_fault(const KeyReader& state) {
  const AuditSpan span = audit_span(state);
  // The record before the oldest one kept is known only where there was none.
  std::optional<std::string> head = span.first == 0 ? std::optional<std::string>("") : std::nullopt;
  uint64_t expected = span.first;
  std::optional<AuditFault> fault;
  kAudit.scan(state, {}, "", "", [&](std::string_view key, std::string_view value) {
    const uint64_t place = ByteReader(key).u64();
    if (place != expected) {
      fault = {std::min(place, expected), place > expected ? "is missing" : "is kept although it was trimmed"};
      return false;
    }
    // The hash comes last: its varint length (1 byte) and 32 bytes.
    const size_t size = value.size() - std::min<size_t>(value.size(), 33);
    const std::string_view record = value.substr(0, size), hash = value.substr(std::min(size + 1, value.size()));
    if (ByteReader(record).u64() != place) fault = {place, "is another one, put in its place"};
    else if (head && sha256(*head + std::string(record)) != hash) fault = {place, "or the one before it was changed"};
    head = hash;
    expected = place + 1;
    return !fault;
  });
  if (fault) return fault;
  if (expected != span.next) return AuditFault{expected, "is missing: the trail was cut off"};
  if (span.next > span.first && head != span.head)
    return AuditFault{span.next - 1, "is not the last one that was written"};
  return std::nullopt;
}

Status verify_audit(const KeyReader& state) {
  const auto fault = find_audit_fault(state);
  if (!fault) return Status::ok();
  return Status(Code::kCorruption, "AUDIT_BROKEN",
                "the audit trail is broken: record " + std::to_string(fault->record) + " " + fault->what);
}

}  // namespace uccp::machine
