#include "machine/machine.h"

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "machine/snapshot.h"
#include "machine/table.h"
#include "storage/memory/memory_kv.h"

namespace uccp::machine {
namespace {

constexpr BytesTable kRows(100);

// A domain with one table: put writes, refuse writes and then fails, lease_put makes a row that ends by time.
class Notes final : public Domain {
 public:
  std::string_view name() const override { return "notes"; }
  std::map<std::string, ApplyFunction, std::less<>> commands() override {
    return {
        {"put",
         [](ApplyContext& c, std::string_view p) -> ApplyResult {
           kRows.put(c.state(), c.scope(), "row", std::string(p));
           c.emit("notes", "row", 1, std::string(p));
           return "put " + std::string(p) + " at " + std::to_string(c.index().value);
         }},
        {"refuse",
         [](ApplyContext& c, std::string_view p) -> ApplyResult {
           kRows.put(c.state(), c.scope(), "row", "must not stay");
           c.create_lease("notes", "row", 10);
           return fail(Code::kConflict, "REFUSED", std::string(p));
         }},
        {"lease",
         [](ApplyContext& c, std::string_view p) -> ApplyResult {
           kRows.put(c.state(), c.scope(), "leased", std::string(p));
           return std::to_string(c.create_lease("notes", "leased", 1000));
         }},
        {"swap",
         [](ApplyContext& c, std::string_view p) -> ApplyResult {
           // Knows what is there, and that "new" is not.
           c.state().replace(table_key::make(100, c.scope(), "row"), "a", std::string(p));
           c.state().replace(table_key::make(100, c.scope(), "new"), std::nullopt, std::string(p));
           c.state().replace(table_key::make(100, c.scope(), "new"), std::string(p), std::nullopt);
           if (p == "refused") return fail(Code::kConflict, "REFUSED", "");
           return "";
         }},
        {"tell",
         [](ApplyContext& c, std::string_view p) -> ApplyResult {
           c.notify("notes", "row", 2, std::string(p));
           return "";
         }},
        {"touch",
         [](ApplyContext& c, std::string_view p) -> ApplyResult {
           c.touch_lease(std::stoull(std::string(p)), 1000);
           return "";
         }},
    };
  }
  void on_lease_expired(ApplyContext& c, LeaseId lease, std::string_view key) override {
    kRows.erase(c.state(), c.scope(), key);
  }
};

class MachineTest : public ::testing::Test {
 protected:
  MachineTest() : machine_(kCoreGroup, kv_, {&notes_}, {.changes_kept = 3}) { EXPECT_TRUE(machine_.open().is_ok()); }

  Envelope envelope(std::string command, std::string payload, std::string request_id = "") {
    Envelope e;
    e.scope = {"t", "n"};
    e.principal = "p";
    e.method = "m";
    e.command = std::move(command);
    e.dedup.request_id = std::move(request_id);
    e.dedup.request_hash = std::hash<std::string>()(payload);
    e.payload = std::move(payload);
    e.boot = boot_;
    e.audited = true;
    return e;
  }
  ApplyResult apply(const Envelope& e, Term term = Term(1)) {
    const Entry entry{term, machine_.applied().next(), EntryKind::kCommand, encode_envelope(e)};
    auto batch = machine_.apply({&entry, 1});
    EXPECT_TRUE(batch.has_value());
    last_ = std::move(*batch);
    EXPECT_TRUE(machine_.verify_digest().is_ok());
    return last_.results[0].result;
  }
  std::string row(std::string_view key) { return kRows.get(machine_.view(), {"t", "n"}, key).value_or("(none)"); }

  storage::MemoryKv kv_;
  Notes notes_;
  Machine machine_;
  AppliedBatch last_;
  BootTime boot_{1000};
};

TEST_F(MachineTest, EffectsAndAppliedIndexSurviveReopening) {
  EXPECT_EQ(*apply(envelope("notes.put", "a")), "put a at 1");
  Machine reopened(kCoreGroup, kv_, {&notes_});
  ASSERT_TRUE(reopened.open().is_ok());
  EXPECT_EQ(reopened.applied(), LogIndex(1));
  EXPECT_EQ(kRows.get(reopened.view(), {"t", "n"}, "row"), "a");
  EXPECT_EQ(reopened.digest(), machine_.digest());
}

TEST_F(MachineTest, ARejectedCommandLeavesNothingButItsResult) {
  (void)apply(envelope("notes.put", "a"));
  const auto result = apply(envelope("notes.refuse", "no", "id-1"));
  EXPECT_EQ(result.error().reason(), "REFUSED");
  EXPECT_EQ(row("row"), "a");
  EXPECT_TRUE(machine_.leases().empty());
  EXPECT_EQ(apply(envelope("notes.refuse", "no", "id-1")).error().reason(), "REFUSED");
}

TEST_F(MachineTest, AReplacementByOneWhoKnowsTheOldValueIsAsGoodAsAPut) {
  (void)apply(envelope("notes.put", "a"));
  EXPECT_FALSE(apply(envelope("notes.swap", "refused")));
  EXPECT_EQ(row("row"), "a") << "it is undone like any other";
  EXPECT_TRUE(apply(envelope("notes.swap", "b")));
  EXPECT_EQ(row("row"), "b");
  EXPECT_EQ(row("new"), "(none)");
}

TEST_F(MachineTest, WhatIsOnlyToldIsNotKept) {
  (void)apply(envelope("notes.tell", "now"));
  ASSERT_EQ(last_.changes.size(), 2u);
  EXPECT_EQ(last_.changes[0].payload, "now");
  EXPECT_EQ(last_.changes[1].topic, kAuditTopic) << "there is another record of the audit trail";
  EXPECT_TRUE(read_changes(machine_.view(), LogIndex(0), 10)->empty());
}

TEST_F(MachineTest, ARepeatedRequestGetsTheFirstResultAndRunsOnce) {
  EXPECT_EQ(*apply(envelope("notes.put", "a", "id-1")), "put a at 1");
  EXPECT_EQ(*apply(envelope("notes.put", "a", "id-1")), "put a at 1");
  EXPECT_EQ(apply(envelope("notes.put", "b", "id-1")).error().reason(), "REQUEST_ID_REUSED");
  EXPECT_EQ(row("row"), "a");
}

TEST_F(MachineTest, RequestIdsAreForgottenAfterADay) {
  (void)apply(envelope("notes.put", "a", "id-1"));
  boot_ = boot_.plus_ms(limits::kRequestIdTtlMs + 1000);
  for (int i = 0; i < 130; ++i) (void)apply(envelope("notes.put", "x"));
  EXPECT_EQ(*apply(envelope("notes.put", "b", "id-1")), "put b at 132");
}

TEST_F(MachineTest, EachRequestIdHasADayOfItsOwn) {
  constexpr int64_t kHalfMs = limits::kRequestIdTtlMs / 2;
  const auto pass = [&](int64_t ms) {
    boot_ = boot_.plus_ms(ms);
    for (int i = 0; i < 130; ++i) (void)apply(envelope("notes.put", "x"));
  };
  // There was nothing to forget yet.
  pass(1'000);
  EXPECT_TRUE(apply(envelope("notes.put", "a", "id-1")).has_value());
  pass(kHalfMs);
  EXPECT_TRUE(apply(envelope("notes.put", "a", "id-2")).has_value());
  pass(kHalfMs - 2'000);
  EXPECT_EQ(apply(envelope("notes.put", "b", "id-1")).error().reason(), "REQUEST_ID_REUSED");
  pass(3'000);
  EXPECT_TRUE(apply(envelope("notes.put", "b", "id-1")).has_value());
  EXPECT_EQ(apply(envelope("notes.put", "b", "id-2")).error().reason(), "REQUEST_ID_REUSED");
  pass(kHalfMs);
  EXPECT_TRUE(apply(envelope("notes.put", "b", "id-2")).has_value());
  EXPECT_EQ(apply(envelope("notes.put", "c", "id-1")).error().reason(), "REQUEST_ID_REUSED");
}

TEST_F(MachineTest, AnUnknownSessionExecutesNothing) {
  Envelope e = envelope("notes.put", "a");
  e.dedup.session = SessionId(77);
  e.dedup.sequence = 1;
  EXPECT_EQ(apply(e).error().reason(), "SESSION_EXPIRED");
  EXPECT_EQ(row("row"), "(none)");
}

TEST_F(MachineTest, ASessionRunsEachSequenceOnceAndForgetsAcknowledgedReplies) {
  const SessionId session(ByteReader(*apply(envelope("machine.open_session", ""))).u64());
  Envelope e = envelope("notes.put", "a");
  e.dedup = {.session = session, .sequence = 1, .acknowledged_below = 0, .request_hash = 1};
  const std::string first = *apply(e);
  EXPECT_EQ(*apply(e), first);
  Envelope second = e;
  second.dedup = {.session = session, .sequence = 2, .acknowledged_below = 2, .request_hash = 2};
  EXPECT_TRUE(apply(second).has_value());
  EXPECT_EQ(apply(e).error().reason(), "SEQUENCE_FORGOTTEN");
}

TEST_F(MachineTest, MachineTimeFollowsTheLeadersBootClockAndIgnoresAnotherOrigin) {
  (void)apply(envelope("notes.put", "a"));
  const int64_t start = machine_.machine_time_ms();
  boot_ = boot_.plus_ms(5000);
  (void)apply(envelope("notes.put", "b"));
  EXPECT_EQ(machine_.machine_time_ms(), start + 5000);
  boot_ = {1};  // a new leader whose machine booted a moment ago
  (void)apply(envelope("notes.put", "c"), Term(2));
  EXPECT_EQ(machine_.machine_time_ms(), start + 5000);
  boot_ = boot_.plus_ms(10);
  (void)apply(envelope("notes.put", "d"), Term(2));
  EXPECT_EQ(machine_.machine_time_ms(), start + 5010);
}

TEST_F(MachineTest, ALeaseExpiresOnlyForTheCurrentGenerationAndTerm) {
  const LeaseId lease = std::stoull(*apply(envelope("notes.lease", "x")));
  (void)apply(envelope("notes.touch", std::to_string(lease)));
  (void)apply(envelope("machine.expire", encode_expire(lease, 1, Term(1))));
  EXPECT_EQ(row("leased"), "x");
  (void)apply(envelope("machine.expire", encode_expire(lease, 2, Term(9))));
  EXPECT_EQ(row("leased"), "x");
  Envelope system = envelope("machine.expire", encode_expire(lease, 2, Term(1)));
  system.scope = {};
  (void)apply(system);
  EXPECT_EQ(row("leased"), "(none)");
  EXPECT_EQ(last_.leases.back().ttl_ms, -1);
}

TEST_F(MachineTest, ChangesCanBeReadFromACursorUntilTheyAreCompacted) {
  for (const char* text : {"a", "b", "c"}) (void)apply(envelope("notes.put", text));
  auto changes = read_changes(machine_.view(), LogIndex(1), 10);
  ASSERT_TRUE(changes.has_value());
  ASSERT_EQ(changes->size(), 2u);
  EXPECT_EQ((*changes)[0].payload, "b");
  EXPECT_EQ(read_changes(machine_.view(), LogIndex(3), 10)->size(), 0u);
  for (const char* text : {"d", "e"}) (void)apply(envelope("notes.put", text));
  EXPECT_EQ(read_changes(machine_.view(), LogIndex(1), 10).error().reason(), "CURSOR_COMPACTED");
  EXPECT_EQ(read_changes(machine_.view(), LogIndex(2), 10)->size(), 3u);
}

// What level 1 does is what the first release does: a cluster in the middle of an upgrade applies the same entries with
// both.
TEST_F(MachineTest, RecordsAreDroppedOneByOneAtLevelOneAndManyAtATimeAtLevelTwo) {
  Machine machine(kCoreGroup, kv_, {&notes_}, {.changes_kept = 64});
  ASSERT_TRUE(machine.open().is_ok());
  const auto apply_to = [&](const Envelope& e) {
    const Entry entry{Term(1), machine.applied().next(), EntryKind::kCommand, encode_envelope(e)};
    auto batch = machine.apply({&entry, 1});
    EXPECT_TRUE(batch && batch->results[0].result && machine.verify_digest().is_ok());
  };
  const auto kept = [&] {
    size_t count = 0;
    const std::string table = table_key::begin(kChangeTable).take();
    machine.view().scan(table, prefix_end(table), [&](std::string_view, std::string_view) { return ++count > 0; });
    return count;
  };
  EXPECT_EQ(machine.feature_level(), 1u) << "until a leader knows better";
  for (int i = 0; i < 80; ++i) {
    apply_to(envelope("notes.put", "x"));
    EXPECT_EQ(kept(), std::min<size_t>(static_cast<size_t>(i) + 1, 64));
  }
  EXPECT_EQ(machine.digest().to_string(), "a2ee0365c96b006c2f6aaa194af99e1c");
  apply_to(envelope("machine.set_feature_level", encode_feature_level(kTrimsManyLevel)));
  size_t most = 0, least = 1000;
  for (int i = 0; i < 80; ++i) {
    apply_to(envelope("notes.put", "x"));
    most = std::max(most, kept());
    least = std::min(least, kept());
  }
  EXPECT_EQ(least, 64u);
  EXPECT_EQ(most, 64u + 64 / 16 - 1);
}

TEST_F(MachineTest, FeatureLevelsOnlyGrowUpToWhatIsKnown) {
  EXPECT_TRUE(apply(envelope("machine.set_feature_level", encode_feature_level(kFeatureLevelMax))));
  EXPECT_EQ(machine_.feature_level(), kFeatureLevelMax);
  EXPECT_EQ(apply(envelope("machine.set_feature_level", encode_feature_level(1))).error().reason(), "FEATURE_LEVEL");
  EXPECT_FALSE(apply(envelope("machine.set_feature_level", encode_feature_level(kFeatureLevelMax + 1))));
  EXPECT_EQ(machine_.feature_level(), kFeatureLevelMax);
}

TEST_F(MachineTest, TheAuditChainNamesEveryMutationAndShowsTampering) {
  (void)apply(envelope("notes.put", "a"));
  (void)apply(envelope("notes.refuse", "b"));
  (void)apply(envelope("notes.put", "c"));
  const auto records = read_audit(machine_.view(), 0, 10);
  ASSERT_EQ(records.size(), 3u);
  EXPECT_EQ(records[1].outcome, "REFUSED");
  EXPECT_TRUE(verify_audit(machine_.view()).is_ok());
  storage::KvBatch tamper;
  const std::string key = group_prefix(kCoreGroup) + table_key::make(kAuditTable, {}, ByteWriter().u64(1).data());
  std::string value = **kv_.view()->get(key);
  value[20] ^= 1;
  tamper.put(key, value);
  ASSERT_TRUE(kv_.write(tamper).is_ok());
  EXPECT_EQ(verify_audit(GroupView(kCoreGroup, kv_.view(), LogIndex(3), 0)).reason(), "AUDIT_BROKEN");
}

TEST(Envelope, EveryFieldSurvivesEncoding) {
  Envelope e;
  e.scope = {"t", "n"};
  e.principal = "p";
  e.method = "m";
  e.command = "c.d";
  e.resource = "r";
  e.dedup = {SessionId(1), 2, 3, "id", 4};
  e.traceparent = "00-1";
  e.policy_revision = 5;
  e.audited = true;
  e.boot = {6};
  e.wall = {7};
  e.payload = std::string("\0x", 2);
  EXPECT_EQ(*decode_envelope(encode_envelope(e)), e);
  EXPECT_EQ(decode_envelope(encode_envelope(e).substr(0, 20)).error().reason(), "ENVELOPE_INVALID");
}

TEST_F(MachineTest, TheMembershipIsPartOfTheStateAndNotOfItsDigest) {
  ASSERT_TRUE(machine_.found("founders").is_ok());
  EXPECT_EQ(machine_.membership(), "founders");
  const Digest before = machine_.digest();
  const Entry entry{Term(1), LogIndex(1), EntryKind::kConfiguration, "members"};
  ASSERT_TRUE(machine_.apply({&entry, 1}).has_value());
  EXPECT_EQ(machine_.digest(), before);
  EXPECT_TRUE(machine_.verify_digest().is_ok());
  Machine reopened(kCoreGroup, kv_, {&notes_});
  ASSERT_TRUE(reopened.open().is_ok());
  EXPECT_EQ(reopened.membership(), "members");
}

TEST_F(MachineTest, AnInstalledSnapshotIsUsedWhenTheSlotIsSwitched) {
  (void)apply(envelope("notes.put", "a"));
  (void)apply(envelope("notes.lease", "b"));
  storage::MemoryKv other_kv;
  Machine other(kCoreGroup, other_kv, {&notes_});
  ASSERT_TRUE(other.open().is_ok());
  // Twice, so that both slots were the spare one.
  for (int i = 0; i < 2; ++i) {
    SnapshotReader reader(machine_.snapshot_header(), machine_.view(), {.chunk_bytes = 10});
    SnapshotWriter writer(kCoreGroup, other_kv, other.spare_slot());
    while (!writer.complete()) ASSERT_TRUE(writer.add(reader.next()).is_ok());
    EXPECT_GT(writer.next(), 3u);
    const LogPosition position = writer.header().position;
    ASSERT_TRUE(other.switch_slot(position).is_ok());
    ASSERT_TRUE(other.open().is_ok());
    EXPECT_EQ(other.installed(), position);
    EXPECT_EQ(other.applied(), machine_.applied());
    EXPECT_EQ(other.digest(), machine_.digest());
    EXPECT_TRUE(other.verify_digest().is_ok());
    EXPECT_EQ(other.leases().size(), 1u);
    const std::string spare = group_prefix(kCoreGroup, other.spare_slot());
    const auto view = other_kv.view();
    const auto it = view->iterate();
    it->seek(spare);
    EXPECT_FALSE(it->valid() && it->key().starts_with(spare)) << "the old state is erased";
    (void)apply(envelope("notes.put", "c" + std::to_string(i)));
  }
}

}  // namespace
}  // namespace uccp::machine
