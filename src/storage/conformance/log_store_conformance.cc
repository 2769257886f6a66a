#include "storage/conformance/log_store_conformance.h"

#include <algorithm>

#include "storage/memory/memory_log_store.h"

namespace uccp::storage {

constexpr GroupId kA{1};
constexpr GroupId kB{1000};

std::vector<Entry> make_entries(uint64_t first, uint64_t last, uint64_t term, size_t size) {
  std::vector<Entry> entries;
  for (uint64_t index = first; index <= last; ++index) {
    std::string data = std::to_string(index) + "@" + std::to_string(term) + ";";
    data.resize(std::max(size, data.size()), '.');
    const auto kind = static_cast<EntryKind>(1 + index % 3);
    entries.push_back({Term(term), LogIndex(index), kind, std::move(data)});
  }
  return entries;
}

std::string dump(LogStore& store) {
  std::string text;
  for (const GroupId id : store.groups()) {
    const auto log = store.load(id);
    if (!log) return log.error().to_string();
    const auto& [hard, start, last] = *log;
    text += "group " + std::to_string(id.value) + " term " + std::to_string(hard.term.value) + " vote " +
            std::to_string(hard.vote.value) + " commit " + std::to_string(hard.commit.value) + " start " +
            std::to_string(start.index.value) + "@" + std::to_string(start.term.value) + " last " +
            std::to_string(last.index.value) + "@" + std::to_string(last.term.value) + ":";
    const auto entries = store.read(id, start.index.next(), last.index.next(), UINT64_MAX);
    if (!entries) return entries.error().to_string();
    for (const Entry& entry : *entries) {
      const auto term = store.term(id, entry.index);
      if (!term || *term != entry.term) return "the term of an entry is wrong";
      const std::string kind = std::to_string(static_cast<int>(entry.kind));
      text += " " + std::to_string(entry.index.value) + "/" + kind + "/" + entry.data;
    }
    text += "\n";
  }
  return text;
}

Status random_operation(Random& random, const std::vector<LogStore*>& stores) {
  const auto all = [&](auto operation) -> Status {
    for (LogStore* store : stores) UCCP_RETURN_IF_ERROR(operation(*store));
    return Status();
  };
  const GroupId group{1 + random.below(3)};
  UCCP_TRY(const GroupLog log, stores.front()->load(group));
  const uint64_t start = log.start.index.value;
  const uint64_t last = log.last.index.value;
  // A Raft log never replaces entries by ones of a lower term.
  const uint64_t term = std::max({log.hard_state.term.value, log.last.term.value, log.start.term.value, uint64_t{1}});
  const uint64_t choice = random.below(100);
  if (choice < 60) {
    const bool replace = choice < 10 && last > start;
    const uint64_t first = replace ? start + 1 + random.below(last - start) : last + 1;
    const auto entries = make_entries(first, first + random.below(6), term + (replace ? 1 : 0), random.below(200));
    return all([&](LogStore& store) { return store.append(group, entries); });
  }
  if (choice < 80) {
    const HardState state{Term(term + random.below(2)), NodeId(random.below(4)), LogIndex(random.below(last + 1))};
    return all([&](LogStore& store) { return store.set_hard_state(group, state); });
  }
  if (choice < 98) {
    LogPosition position{Term(term + 1), LogIndex(last + 1 + random.below(20))};
    if (choice < 95 && last > start) {
      position.index = LogIndex(start + 1 + random.below(last - start));
      UCCP_TRY(position.term, stores.front()->term(group, position.index));
      if (choice < 82) position.term = position.term.next();
    }
    return all([&](LogStore& store) { return store.truncate_before(group, position); });
  }
  return all([&](LogStore& store) { return store.remove(group); });
}

LogStoreHarnessFactory under_test(LogStoreHarnessFactory factory) { return factory; }

void LogStoreConformance::SetUp() { harness_ = GetParam()(); }

TEST_P(LogStoreConformance, AnUnknownGroupIsAllZero) {
  EXPECT_TRUE(store().groups().empty());
  const auto log = store().load(kA);
  ASSERT_TRUE(log);
  EXPECT_EQ(log->hard_state, HardState());
  EXPECT_EQ(log->start, LogPosition());
  EXPECT_EQ(log->last, LogPosition());
  EXPECT_EQ(*store().term(kA, LogIndex(0)), Term(0));
  EXPECT_TRUE(store().read(kA, LogIndex(1), LogIndex(1), 100)->empty());
}

TEST_P(LogStoreConformance, WritesAreVisibleBeforeTheSyncAndDurableAfterIt) {
  ASSERT_TRUE(store().append(kA, make_entries(1, 3, 2)).is_ok());
  ASSERT_TRUE(store().set_hard_state(kA, {Term(2), NodeId(7), LogIndex(1)}).is_ok());
  const std::string written = dump(store());
  EXPECT_EQ(*store().read(kA, LogIndex(1), LogIndex(4), 1000), make_entries(1, 3, 2));
  ASSERT_TRUE(store().sync().is_ok());
  EXPECT_EQ(dump(store()), written);
  harness_->crash();
  EXPECT_EQ(dump(store()), written);
}

TEST_P(LogStoreConformance, WhatWasNotSyncedIsLostAsAWhole) {
  ASSERT_TRUE(store().append(kA, make_entries(1, 3, 2)).is_ok());
  ASSERT_TRUE(store().sync().is_ok());
  const std::string synced = dump(store());
  ASSERT_TRUE(store().append(kA, make_entries(2, 9, 3)).is_ok());
  ASSERT_TRUE(store().append(kB, make_entries(1, 9, 3)).is_ok());
  ASSERT_TRUE(store().set_hard_state(kA, {Term(3), NodeId(), LogIndex()}).is_ok());
  harness_->crash();
  EXPECT_EQ(dump(store()), synced);
}

TEST_P(LogStoreConformance, OneSyncServesAllGroups) {
  const uint64_t before = store().sync_count();
  ASSERT_TRUE(store().append(kA, make_entries(1, 3, 1)).is_ok());
  ASSERT_TRUE(store().append(kB, make_entries(1, 3, 1)).is_ok());
  ASSERT_TRUE(store().sync().is_ok());
  ASSERT_TRUE(store().sync().is_ok());
  EXPECT_EQ(store().sync_count(), before + 1);
  EXPECT_EQ(store().groups(), (std::vector<GroupId>{kA, kB}));
}

TEST_P(LogStoreConformance, AppendReplacesEntriesFromItsFirstIndexOn) {
  ASSERT_TRUE(store().append(kA, make_entries(1, 9, 1)).is_ok());
  ASSERT_TRUE(store().sync().is_ok());
  ASSERT_TRUE(store().append(kA, make_entries(4, 5, 2)).is_ok());
  EXPECT_EQ(store().load(kA)->last, (LogPosition{Term(2), LogIndex(5)}));
  EXPECT_EQ(*store().term(kA, LogIndex(3)), Term(1));
  EXPECT_EQ(*store().term(kA, LogIndex(4)), Term(2));
  EXPECT_EQ(store().read(kA, LogIndex(4), LogIndex(7), 100).error().code(), Code::kInvalid);
  ASSERT_TRUE(store().sync().is_ok());
  harness_->crash();
  EXPECT_EQ(*store().read(kA, LogIndex(4), LogIndex(6), 1000), make_entries(4, 5, 2));
  EXPECT_EQ(store().load(kA)->last.index, LogIndex(5));
}

TEST_P(LogStoreConformance, AppendRefusesGapsAndCompactedIndexesAndStaysUsable) {
  ASSERT_TRUE(store().append(kA, make_entries(1, 5, 1)).is_ok());
  ASSERT_TRUE(store().truncate_before(kA, {Term(1), LogIndex(3)}).is_ok());
  EXPECT_EQ(store().append(kA, make_entries(7, 8, 1)).reason(), "LOG_APPEND_GAP");
  EXPECT_EQ(store().append(kA, make_entries(3, 6, 1)).reason(), "LOG_APPEND_COMPACTED");
  auto holed = make_entries(6, 8, 1);
  holed.erase(holed.begin() + 1);
  EXPECT_EQ(store().append(kA, holed).reason(), "LOG_APPEND_GAP");
  EXPECT_TRUE(store().append(kA, {}).is_ok());
  EXPECT_TRUE(store().append(kA, make_entries(6, 8, 1)).is_ok());
  EXPECT_TRUE(store().sync().is_ok());
  EXPECT_EQ(store().load(kA)->last.index, LogIndex(8));
}

TEST_P(LogStoreConformance, ReadStopsAtItsByteLimitButGivesAtLeastOne) {
  ASSERT_TRUE(store().append(kA, make_entries(1, 10, 1, 100)).is_ok());
  const auto count = [&](uint64_t bytes_max) { return store().read(kA, LogIndex(2), LogIndex(9), bytes_max)->size(); };
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(count(0), 1u);
    EXPECT_EQ(count(199), 1u);
    EXPECT_EQ(count(200), 2u);
    EXPECT_EQ(count(UINT64_MAX), 7u);
    ASSERT_TRUE(store().sync().is_ok());
    harness_->restart();
  }
}

TEST_P(LogStoreConformance, TruncateMovesTheStart) {
  ASSERT_TRUE(store().append(kA, make_entries(1, 4, 1)).is_ok());
  ASSERT_TRUE(store().append(kA, make_entries(5, 9, 2)).is_ok());
  ASSERT_TRUE(store().truncate_before(kA, {Term(2), LogIndex(5)}).is_ok());
  ASSERT_TRUE(store().truncate_before(kA, {Term(1), LogIndex(3)}).is_ok());
  ASSERT_TRUE(store().sync().is_ok());
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(store().load(kA)->start, (LogPosition{Term(2), LogIndex(5)}));
    EXPECT_EQ(store().load(kA)->last, (LogPosition{Term(2), LogIndex(9)}));
    EXPECT_EQ(store().read(kA, LogIndex(5), LogIndex(7), 100).error().reason(), "LOG_COMPACTED");
    EXPECT_EQ(store().term(kA, LogIndex(4)).error().reason(), "LOG_COMPACTED");
    EXPECT_EQ(store().term(kA, LogIndex(10)).error().code(), Code::kInvalid);
    EXPECT_EQ(*store().term(kA, LogIndex(5)), Term(2));
    EXPECT_EQ(*store().read(kA, LogIndex(6), LogIndex(10), 1000), make_entries(6, 9, 2));
    harness_->crash();
  }
}

TEST_P(LogStoreConformance, TruncateBeyondTheEndEmptiesTheLogAndContinuesBehind) {
  ASSERT_TRUE(store().append(kA, make_entries(1, 4, 1)).is_ok());
  ASSERT_TRUE(store().truncate_before(kA, {Term(3), LogIndex(100)}).is_ok());
  EXPECT_EQ(store().load(kA)->last, (LogPosition{Term(3), LogIndex(100)}));
  EXPECT_EQ(store().append(kA, make_entries(5, 5, 3)).reason(), "LOG_APPEND_COMPACTED");
  ASSERT_TRUE(store().append(kA, make_entries(101, 102, 3)).is_ok());
  ASSERT_TRUE(store().sync().is_ok());
  harness_->crash();
  EXPECT_EQ(*store().read(kA, LogIndex(101), LogIndex(103), 1000), make_entries(101, 102, 3));
}

TEST_P(LogStoreConformance, TruncateAtAnEntryOfAnotherTermDropsWhatFollowsToo) {
  ASSERT_TRUE(store().append(kA, make_entries(1, 9, 1)).is_ok());
  ASSERT_TRUE(store().truncate_before(kA, {Term(2), LogIndex(5)}).is_ok());
  ASSERT_TRUE(store().sync().is_ok());
  harness_->crash();
  EXPECT_EQ(store().load(kA)->start, (LogPosition{Term(2), LogIndex(5)}));
  EXPECT_EQ(store().load(kA)->last, (LogPosition{Term(2), LogIndex(5)}));
}

TEST_P(LogStoreConformance, ARemovedGroupIsForgottenAndMayComeBack) {
  ASSERT_TRUE(store().append(kA, make_entries(1, 9, 1)).is_ok());
  ASSERT_TRUE(store().set_hard_state(kA, {Term(1), NodeId(1), LogIndex(1)}).is_ok());
  ASSERT_TRUE(store().append(kB, make_entries(1, 1, 1)).is_ok());
  ASSERT_TRUE(store().sync().is_ok());
  ASSERT_TRUE(store().remove(kA).is_ok());
  ASSERT_TRUE(store().remove(GroupId(77)).is_ok());
  EXPECT_EQ(store().groups(), std::vector<GroupId>{kB});
  ASSERT_TRUE(store().sync().is_ok());
  harness_->crash();
  EXPECT_EQ(store().groups(), std::vector<GroupId>{kB});
  EXPECT_EQ(store().load(kA)->last, LogPosition());
  ASSERT_TRUE(store().append(kA, make_entries(1, 2, 5)).is_ok());
  ASSERT_TRUE(store().sync().is_ok());
  harness_->crash();
  EXPECT_EQ(store().load(kA)->last, (LogPosition{Term(5), LogIndex(2)}));
  EXPECT_EQ(store().load(kA)->hard_state, HardState());
}

TEST_P(LogStoreConformance, AGroupMayHaveAHardStateOnly) {
  ASSERT_TRUE(store().set_hard_state(kA, {Term(4), NodeId(2), LogIndex()}).is_ok());
  ASSERT_TRUE(store().sync().is_ok());
  harness_->crash();
  EXPECT_EQ(store().groups(), std::vector<GroupId>{kA});
  EXPECT_EQ(store().load(kA)->hard_state.vote, NodeId(2));
}

TEST_P(LogStoreConformance, EmptyAndLargeEntriesAreKept) {
  std::vector<Entry> entries = make_entries(1, 3, 1, 300'000);
  entries[1].data.clear();
  entries[2].data.assign(1 << 20, '\0');
  ASSERT_TRUE(store().append(kA, entries).is_ok());
  ASSERT_TRUE(store().sync().is_ok());
  harness_->restart();
  EXPECT_EQ(*store().read(kA, LogIndex(1), LogIndex(4), UINT64_MAX), entries);
}

TEST_P(LogStoreConformance, SizeGrowsWithContent) {
  ASSERT_TRUE(store().append(kA, make_entries(1, 10, 1, 100'000)).is_ok());
  EXPECT_GE(store().size_bytes(), 1'000'000u);
}

TEST_P(LogStoreConformance, RandomWorkIsDoneAsInMemoryOverCrashesAndRestarts) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    harness_ = GetParam()();
    MemoryLogStore model;
    SeededRandom random(seed);
    for (int step = 0; step < 400; ++step) {
      const Status done = random_operation(random, {&model, &store()});
      ASSERT_TRUE(done.is_ok()) << done.to_string();
      if (random.chance(0.3)) {
        ASSERT_TRUE(model.sync().is_ok() && store().sync().is_ok());
      }
      if (random.chance(0.02)) {
        model.crash();
        harness_->crash();
      }
      if (random.chance(0.02)) {
        ASSERT_TRUE(model.sync().is_ok() && store().sync().is_ok());
        harness_->restart();
      }
      ASSERT_EQ(dump(store()), dump(model)) << "seed " << seed << " step " << step;
    }
  }
}

}  // namespace uccp::storage
