// Passes of compaction and of the cleaner of the log over a bus group, with all that they read and propose.
#include "services/events/test_log_work.h"

namespace uccp::events {
namespace {

using Texts = std::vector<std::string>;
using Offsets = std::vector<uint64_t>;

TEST_F(LogWork, APieceEndsBetweenEntriesAndNotWithinOne) {
  const auto three = [](const std::string& text) {
    return std::vector{BusLab::batch(7, 0, {text + "1"}), BusLab::batch(7, 0, {text + "2"}),
                       BusLab::batch(7, 0, {text + "3"})};
  };
  lab_.append(three("a"));
  lab_.append(three("b"));
  std::vector<std::vector<uint64_t>> pieces;
  uint64_t next = 0;
  for (bool whole = false; !whole;) {
    fetcher_.fetch(bus_group(0), {{kLabScope, {7, 0}, next}}, 1, [&](Result<Fetched> fetched) {
      ASSERT_TRUE(fetched.has_value());
      pieces.emplace_back();
      for (const BatchPtr& batch : fetched->batches) pieces.back().push_back(batch->row.first_offset());
      next = fetched->next.at({7, 0});
      whole = fetched->whole;
    });
    queue_.run();
  }
  EXPECT_EQ(pieces, (std::vector<std::vector<uint64_t>>{{0, 1, 2}, {3, 4, 5}}));
  EXPECT_EQ(log_reads_, 2) << "each entry was read once";
}

TEST_F(LogWork, OfEachKeyTheNewestEventIsLeft) {
  publish({"a=1", "b=1"});
  publish({"a=2", "c=1"});
  publish({"b=2"});
  publish({"d=1"});
  compact();
  EXPECT_EQ(lab_.read(7, 0), (Texts{"a=2", "c=1", "b=2", "d=1"}));
  EXPECT_EQ(lab_.offsets(7, 0), (Offsets{2, 3, 4, 5}));
  EXPECT_EQ(lab_.partition(7, 0).compacted_offset(), 5u);
  EXPECT_EQ(lab_.rows_of(kIndexTable), 3u);
  // Later passes see old and new together.
  publish({"a=3", "c=2"});
  publish({"e=1"});
  compact();
  EXPECT_EQ(lab_.read(7, 0), (Texts{"b=2", "d=1", "a=3", "c=2", "e=1"}));
  EXPECT_EQ(metrics_.value("uccp_bus_compacted_events_total"), 4);
}

TEST_F(LogWork, NothingIsProposedButTheProgressWhereNoKeyComesAgain) {
  publish({"a=1"});
  publish({"b=1"});
  compact();
  EXPECT_EQ(proposed_, 1);
  compact();
  EXPECT_EQ(proposed_, 1) << "there is nothing new but the newest batch";
}

TEST_F(LogWork, AKeyThatIsGoneIsSaidForAWhile) {
  publish({"a=1"});
  publish({"a="});
  publish({"b=1"});
  compact();
  EXPECT_EQ(lab_.offsets(7, 0), (Offsets{1, 2}));
  const int64_t now_ms = lab_.machine().view().machine_time_ms();
  EXPECT_FALSE(compaction_due(lab_.partition(7, 0), now_ms + 1000, {}));
  EXPECT_TRUE(compaction_due(lab_.partition(7, 0), now_ms + 1001, {}));
  lab_.now_ms += 1001;
  lab_.open(7, 1, settings());
  compact();
  EXPECT_EQ(lab_.offsets(7, 0), Offsets{2});
  EXPECT_FALSE(lab_.partition(7, 0).has_oldest_tombstone_ms());
}

TEST_F(LogWork, MoreKeysThanMayBeRememberedTakeSeveralPasses) {
  for (int i = 0; i < 40; ++i) publish({"k" + std::to_string(i % 20) + "=" + std::to_string(i)});
  publish({"end=1"});
  int passes = 0;
  for (; lab_.partition(7, 0).compacted_offset() < 40; ++passes) {
    ASSERT_LT(passes, 40);
    compact({.memory_bytes_max = 500});
  }
  EXPECT_GT(passes, 3);
  EXPECT_EQ(lab_.read(7, 0).size(), 21u);
  EXPECT_EQ(lab_.offsets(7, 0).front(), 20u);
}

TEST_F(LogWork, ItReadsNoFasterThanItMay) {
  for (int i = 0; i < 20; ++i) publish({"a=" + std::string(1000, 'x')});
  publish({"b=1"});
  compact({.bytes_per_second = 10'000, .fetch_bytes = 2'000});
  EXPECT_GT(queue_.waited_ms, 3'000) << "twice 20 KB";
  EXPECT_EQ(lab_.offsets(7, 0), (Offsets{19, 20}));
}

TEST_F(LogWork, WhoNoLongerLeadsProposesNothingMore) {
  for (int i = 0; i < 20; ++i) publish({"a=" + std::to_string(i)});
  before_proposal_ = [this] { leads_ = false; };
  compact({.fetch_bytes = 1, .rows_per_command = 1});
  EXPECT_EQ(proposed_, 1);
}

constexpr LogCleanerOptions kEager{.live_percent_min = 80, .log_bytes_min = 1, .command_bytes = 3000};

TEST_F(LogWork, TheOldestRowsAreStoredAgainAndTheLogBeforeThemCanGo) {
  publish({"old=1", "old2=1"});
  for (int i = 0; i < 50; ++i) publish({"a=" + std::string(1000, 'x') + std::to_string(i)});
  publish({"b=1"});
  compact();
  EXPECT_EQ(lab_.floor(), LogIndex(2)) << "of the second entry one event is needed, so the whole log is";
  const Texts before = lab_.read(7, 0);
  clean(kEager);
  EXPECT_GT(lab_.floor(), LogIndex(50));
  EXPECT_EQ(lab_.read(7, 0), before);
  EXPECT_EQ(lab_.offsets(7, 0), (Offsets{0, 1, 51, 52}));
  EXPECT_GT(metrics_.value("uccp_bus_rewritten_bytes_total"), 0);
  std::erase_if(lab_.log, [this](const auto& entry) { return entry.first < lab_.floor().value; });
  EXPECT_EQ(lab_.read(7, 0), before);
}

TEST_F(LogWork, ALogThatIsMostlyNeededIsLeftAlone) {
  for (int i = 0; i < 50; ++i) publish({"k" + std::to_string(i)});
  clean(kEager);
  EXPECT_EQ(proposed_, 0) << "small events take more beside them than they have; storing them again frees nothing";
  for (int i = 0; i < 50; ++i) publish({"k" + std::to_string(i) + "=" + std::string(1000, 'x')});
  clean({.live_percent_min = 45, .log_bytes_min = 1});
  clean({.live_percent_min = 100, .log_bytes_min = 1 << 20});
  EXPECT_EQ(proposed_, 0);
}

TEST_F(LogWork, APassStoresNoMoreThanItMay) {
  for (int i = 0; i < 100; ++i) publish({"k" + std::to_string(i) + "=" + std::string(100, 'x')});
  for (int i = 0; i < 100; ++i) publish({"a=" + std::string(1000, 'x') + std::to_string(i)});
  compact();
  proposed_ = 0;
  LogCleanerOptions options = kEager;
  options.pass_bytes = 1000;
  // Of the next pass nothing is proposed.
  before_proposal_ = [this] { leads_ = false; };
  options.command_bytes = 1 << 20;
  clean(options);
  EXPECT_LE(metrics_.value("uccp_bus_rewritten_bytes_total"), 1200);
  EXPECT_GE(metrics_.value("uccp_bus_rewritten_bytes_total"), 800);
  EXPECT_EQ(lab_.read(7, 0).size(), 102u);
}

TEST_F(LogWork, ARowThatGoesWhileItIsStoredAgainIsGone) {
  publish({"a=1"});
  for (int i = 0; i < 10; ++i) publish({"k=" + std::string(1000, 'x') + std::to_string(i)});
  compact();
  before_proposal_ = [this] {
    internal::v1::BusCompactCommand command;
    command.set_topic(7);
    command.add_rows()->add_gone(0);
    ASSERT_TRUE(lab_.apply("bus.compact", command.SerializeAsString()).has_value());
  };
  LogCleanerOptions options = kEager;
  clean(options);
  EXPECT_EQ(lab_.offsets(7, 0), (Offsets{9, 10}));
}

TEST_F(LogWork, WhatWaitsForItsOffsetsIsStoredAgainAndKeepsItsOrder) {
  const auto stage = [this](const Texts& texts) {
    internal::v1::BusBatch batch = BusLab::batch(7, 0, texts);
    batch.set_transaction(5);
    batch.set_transaction_producer("p");
    batch.set_principal("somebody");
    EXPECT_TRUE(lab_.append(batch).staged());
  };
  const int64_t due_ms = lab_.now_ms + 60'000;
  internal::v1::BusBatch later = BusLab::batch(7, 0, {"now", "later", "last"});
  for (int place : {1, 2}) {
    v1::Event event;
    ASSERT_TRUE(event.ParseFromString(later.events(place)));
    event.set_key("k");
    event.mutable_deliver_time()->set_seconds(1'700'000'000 + due_ms / 1000 + place);
    *later.mutable_events(place) = event.SerializeAsString();
  }
  stage({"s1", "s2"});
  EXPECT_EQ(lab_.append(later).scheduled_size(), 2);
  stage({"s3"});
  for (int i = 0; i < 50; ++i) publish({"a=" + std::string(1000, 'x') + std::to_string(i)});
  publish({"b=1"});
  compact();
  EXPECT_EQ(lab_.floor(), LogIndex(2)) << "of the transaction";
  // Of three staged batches one comes while the others are stored again.
  before_proposal_ = [&] { stage({"s4"}); };
  clean(kEager);
  EXPECT_GT(lab_.floor(), LogIndex(50));
  std::erase_if(lab_.log, [this](const auto& entry) { return entry.first < lab_.floor().value; });
  internal::v1::TransactionSettleCommand settle;
  settle.set_number(5);
  settle.set_producer_id("p");
  settle.set_commit(true);
  settle.set_events_max(100);
  ASSERT_TRUE(lab_.apply("transactions.settle", settle.SerializeAsString()).has_value());
  lab_.now_ms = due_ms + 3'000;
  internal::v1::BusReleaseCommand release;
  release.set_now_us(1'700'000'000'000'000 + lab_.now_ms * 1000);
  release.set_events_max(10);
  lab_.run_to_end("release", release);
  const Texts texts = lab_.read(7, 0);
  EXPECT_EQ(Texts(texts.end() - 6, texts.end()), (Texts{"s1", "s2", "s3", "s4", "later", "last"}));
}

TEST_F(LogWork, ALogOfEventsThatWaitIsLeftAlone) {
  for (int i = 0; i < 50; ++i) {
    internal::v1::BusBatch batch = BusLab::batch(7, 0, {std::string(1000, 'x')});
    batch.set_transaction(5);
    batch.set_transaction_producer("p");
    lab_.append(batch);
  }
  clean(kEager);
  EXPECT_EQ(proposed_, 0);
}

TEST_F(LogWork, WhatIsSettledWhileItIsStoredAgainStaysWhereItIs) {
  internal::v1::BusBatch batch = BusLab::batch(7, 0, {"staged"});
  batch.set_transaction(5);
  batch.set_transaction_producer("p");
  lab_.append(batch);
  for (int i = 0; i < 50; ++i) publish({"a=" + std::string(1000, 'x') + std::to_string(i)});
  compact();
  before_proposal_ = [this] {
    internal::v1::TransactionSettleCommand settle;
    settle.set_number(5);
    settle.set_producer_id("p");
    settle.set_commit(true);
    ASSERT_TRUE(lab_.apply("transactions.settle", settle.SerializeAsString()).has_value());
  };
  LogCleanerOptions options = kEager;
  options.pass_rows = 1;
  clean(options);
  EXPECT_EQ(lab_.read(7, 0).back(), "staged");
}

}  // namespace
}  // namespace uccp::events
