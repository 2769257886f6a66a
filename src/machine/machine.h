// The replicated machine of one group: applies committed entries to the state, one atomic batch at a time.
//
// Every batch writes the effects, the applied index, machine time and the digest together, so that a crash leaves
// either all of a batch or none of it. Deduplication, leases, change records and the audit trail are written by the
// same batch. Loop thread only; view() hands out immutable state to any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/hash.h"
#include "base/limits.h"
#include "base/log_types.h"
#include "machine/domain.h"
#include "machine/key_reader.h"
#include "storage/kv.h"

namespace uccp::machine {

struct MachineLimits {
  size_t changes_kept = limits::kChangesKept;
  size_t audit_records_kept = 1'000'000;
  size_t request_ids_per_principal_max = limits::kRequestIdsPerPrincipalMax;
  int64_t request_id_ttl_ms = limits::kRequestIdTtlMs;
  size_t sessions_max = 100'000;
  size_t replies_per_session_max = 1024;
};

// What one entry resulted in, in log order.
struct EntryResult {
  LogIndex index;
  ApplyResult result = std::string();
};

struct AppliedBatch {
  std::vector<EntryResult> results;
  std::vector<Change> changes;
  // Leases created or touched (with their ttl) and deleted (ttl < 0), for the leader's deadlines.
  struct LeaseChange {
    LeaseId lease;
    int64_t ttl_ms;
    uint64_t generation;
  };
  std::vector<LeaseChange> leases;
  // The state is another one now: nothing that was known of it holds. The batch has this one entry.
  bool replaced = false;
};

struct LeaseRecord {
  uint64_t generation = 0;
  int64_t ttl_ms = 0;
  std::string domain;
  Scope scope;
  std::string key;
};

// What a snapshot says about itself: the state of a group at one position of its log.
struct SnapshotHeader {
  GroupId group;
  LogPosition position;
  std::string membership;  // encoded; in force at `position`
  uint32_t feature_level = 1;
  Digest digest;

  bool operator==(const SnapshotHeader&) const = default;
};

class Machine {
 public:
  // Requires: `domains` outlive the machine and have different names.
  Machine(GroupId group, storage::Kv& kv, std::vector<Domain*> domains, MachineLimits limits = {});

  // Reads where the state stands. Errors: corruption, unavailable IO_ERROR; unimplemented FEATURE_LEVEL if the state
  // was written by a later program.
  Status open();

  // Applies entries with consecutive indexes behind applied(), all of them or as many as the results tell: an entry
  // that replaces the state makes a batch of its own. An error means that the batch could not be written: the node has
  // to stop.
  Result<AppliedBatch> apply(std::span<const Entry> entries);

  LogIndex applied() const { return meta_.applied; }
  Term applied_term() const { return meta_.applied_term; }
  int64_t machine_time_ms() const { return meta_.time_us / 1000; }
  uint32_t feature_level() const { return meta_.feature_level; }
  const Digest& digest() const { return meta_.digest; }
  // The data of the last configuration entry applied, or the founders; empty: nobody is known.
  const std::string& membership() const { return membership_; }
  // Begins the history of a group with this membership. Requires that none is known. Not flushed.
  Status found(std::string membership);
  // The position of the snapshot that this state began with; 0: it began empty.
  LogPosition installed() const { return installed_; }
  SnapshotHeader snapshot_header() const;
  // The slot that is not in use, for SnapshotWriter.
  StateSlot spare_slot() const { return static_cast<StateSlot>(kStateSlots - 1 - slot_); }
  // Makes the spare slot the one to open(), one write. After a flush, open() takes it and erases the other.
  Status switch_slot(LogPosition installed);
  // Before open(): called when apply() is about to write the spare slot, so that nobody else does.
  void on_spare_slot(std::function<void()> callback) { on_spare_slot_ = std::move(callback); }
  // The state after the last batch.
  const GroupView& view() const { return view_; }

  // All leases in the state. A new leader gives each its full ttl from now.
  std::map<LeaseId, LeaseRecord> leases() const;
  // Walks the whole state and compares its digest with the one kept. For snapshots, restores and the verify command.
  Status verify_digest() const;

 private:
  friend class EntryContext;
  friend class StateReplacement;
  friend Result<SnapshotHeader> read_snapshot_header(GroupId group, const GroupView& view);
  friend struct AuditSpan audit_span(const KeyReader& state);
  struct Meta {
    LogIndex applied;
    Term applied_term;
    int64_t time_us = 0;
    // The clock that the last stamp came from: a new leader's or a restarted node's boot clock starts a new origin.
    Term clock_term;
    int64_t clock_boot_us = 0;
    uint32_t feature_level = 1;
    Digest digest;
    uint64_t changes_first = 0;  // change records in the state are [first, next)
    uint64_t changes_next = 0;
    uint64_t audit_first = 0;
    uint64_t audit_next = 0;
    std::string audit_head;  // hash of the last audit record
  };

  static std::string encode_meta(const Meta& meta);
  static Result<Meta> decode_meta(std::string_view data);
  static std::string slot_key(GroupId group);
  static std::string encode_slot(StateSlot slot, LogPosition installed);
  Status read_slot();
  Status erase_spare_slot();
  void renew_view();
  Result<std::optional<AppliedBatch>> apply_replacement(const Entry& entry, const Envelope& envelope);
  Status write_batch(Transaction&& state, std::span<const Entry> entries);
  ApplyResult apply_command(Transaction& state, const Entry& entry, const Envelope& envelope, AppliedBatch& out);
  ApplyResult run(class EntryContext& context, const Envelope& envelope);
  void advance_time(const Envelope& envelope, Term term);
  // How many of the oldest records go together, where `kept` stay.
  uint64_t trim_count(size_t kept) const;
  void record_changes(Transaction& state, std::vector<Change>& changes);
  void record_audit(Transaction& state, const Entry& entry, const Envelope& envelope, const ApplyResult& result);
  // Commands of the machine itself.
  ApplyResult open_session(class EntryContext& context);
  ApplyResult close_session(class EntryContext& context);
  ApplyResult expire_lease(class EntryContext& context, std::string_view payload);
  ApplyResult set_feature_level(std::string_view payload);
  // restore.cc. `refused` becomes the result of the command; the state is as it was.
  static Transaction& transaction_of(class EntryContext& context);
  static ApplyResult stage_piece(class EntryContext& context, std::string_view payload);
  static ApplyResult drop_pieces(class EntryContext& context);
  Status rebuild(class StateReplacement& replacement, uint64_t pieces, Status& refused) const;
  Status replace_state(const Entry& entry, const Envelope& envelope, Status& refused);

  GroupId group_;
  storage::Kv& kv_;
  MachineLimits limits_;
  std::map<std::string, Domain*, std::less<>> domains_;
  std::map<std::string, ApplyFunction, std::less<>> functions_;
  Meta meta_;
  std::string membership_;
  LogPosition installed_;
  StateSlot slot_ = 0;
  GroupView view_;
  RecentRows recent_;           // of view_
  int64_t forget_from_ms_ = 0;  // before this machine time no remembered reply is too old
  std::function<void()> on_spare_slot_;
  Status replace_refused_;  // by the entry that is being applied
};

// The machine's head records are outside the digest: they hold it, or are no effect of commands.
bool in_digest(std::string_view key);

// What apply does differently since a feature level. A group is at level 1 until its leader knows that all members can
// apply a higher one. What an older level does stays as it was, or a cluster in the middle of an upgrade falls apart.
inline constexpr uint32_t kTrimsManyLevel = 2;      // change and audit records are dropped many at a time
inline constexpr uint32_t kPackedEntriesLevel = 2;  // nothing in apply: entries travel packed between nodes
// Highest feature level this program can apply.
inline constexpr uint32_t kFeatureLevelMax = 2;

// Payload of the system command "machine.set_feature_level".
std::string encode_feature_level(uint32_t level);

// Payload of the system command "machine.expire".
std::string encode_expire(LeaseId lease, uint64_t generation, Term term);

// Change records with index > `since` that are still in the state, oldest first: about `count_max`, never cut inside an
// index.
// Errors: failed_precondition CURSOR_COMPACTED if records behind `since` are gone already.
Result<std::vector<Change>> read_changes(const KeyReader& state, LogIndex since, size_t count_max);

// Everything behind this index is still among the changes that are kept.
LogIndex changes_floor(const KeyReader& state);

// Told, to those who watch just now, with each record of the audit trail; without content.
inline constexpr std::string_view kAuditTopic = "audit";

// One audit record as stored, oldest first; the hash covers the record and the hash before it.
struct AuditRecord {
  uint64_t number = 0;
  LogIndex index;
  int64_t wall_us = 0;
  std::string tenant, name_space, principal, method, resource, outcome, hash;
};
// Records with number >= `from`, at most `count_max`.
std::vector<AuditRecord> read_audit(const KeyReader& state, uint64_t from, size_t count_max);
// Where the trail begins and ends, as the machine knows it: records [first, next), and the hash of the last one.
struct AuditSpan {
  uint64_t first = 0;
  uint64_t next = 0;
  std::string head;
};
AuditSpan audit_span(const KeyReader& state);
// The first record of the trail that is not what was written there: changed, missing, in another's place, or cut off.
struct AuditFault {
  uint64_t record = 0;
  std::string what;
};
std::optional<AuditFault> find_audit_fault(const KeyReader& state);
// The same as an error. Errors: corruption AUDIT_BROKEN naming the record.
Status verify_audit(const KeyReader& state);

}  // namespace uccp::machine
