// Transactions over topics: what the coordinator decides, and what a group that takes part does with it.
#include "services/events/transactions_state.h"

#include "services/events/test_bus_lab.h"
#include "services/events/transaction_part.h"
#include "services/feature_types.h"

namespace uccp::events {
namespace {

using internal::v1::BusBatch;
using internal::v1::BusBatchResult;
using internal::v1::TransactionBeginResult;
using internal::v1::TransactionHoldResult;
using machine::ApplyResult;
using Texts = std::vector<std::string>;

class TransactionsTest : public testing::Test {
 protected:
  TransactionsTest() { lab_.open(7, 2); }

  ApplyResult begin(const std::string& producer, uint64_t epoch = 0, uint64_t open_max = 100) {
    internal::v1::TransactionBeginCommand command;
    command.set_producer_id(producer);
    command.set_epoch(epoch);
    command.set_timeout_ms(1'000);
    command.set_open_max(open_max);
    return lab_.apply("transactions.begin", command.SerializeAsString());
  }
  TransactionBeginResult begun(const std::string& producer, uint64_t epoch = 0) {
    TransactionBeginResult result;
    const auto answer = begin(producer, epoch);
    EXPECT_TRUE(answer && result.ParseFromString(*answer)) << answer.error().to_string();
    return result;
  }
  ApplyResult join(uint64_t number, uint64_t events = 1, uint64_t acks = 0, std::vector<uint32_t> groups = {0}) {
    internal::v1::TransactionJoinCommand command;
    command.set_number(number);
    for (const uint32_t group : groups) command.add_groups(group);
    command.set_events(events);
    command.set_acks(acks);
    command.set_bytes(events * 10);
    command.set_events_max(20);
    command.set_bytes_max(1'000);
    return lab_.apply("transactions.join", command.SerializeAsString());
  }
  ApplyResult end(uint64_t number, bool commit) {
    internal::v1::TransactionEndCommand command;
    command.set_number(number);
    command.set_commit(commit);
    return lab_.apply("transactions.end", command.SerializeAsString());
  }
  ApplyResult settled(uint64_t number) {
    internal::v1::TransactionSettledCommand command;
    command.set_number(number);
    return lab_.apply("transactions.settled", command.SerializeAsString());
  }
  int settle(uint64_t number, const std::string& producer, bool commit, uint32_t events_max = 100) {
    internal::v1::TransactionSettleCommand command;
    command.set_number(number);
    command.set_producer_id(producer);
    command.set_commit(commit);
    command.set_events_max(events_max);
    for (int steps = 1;; ++steps) {
      const auto answer = lab_.apply("transactions.settle", command.SerializeAsString());
      internal::v1::BusProgress progress;
      EXPECT_TRUE(answer && progress.ParseFromString(*answer));
      if (progress.done()) return steps;
    }
  }
  static BusBatch batch(uint64_t number, const std::string& producer, const Texts& texts, uint32_t partition = 0) {
    BusBatch out = BusLab::batch(7, partition, texts);
    out.set_transaction(number);
    out.set_transaction_producer(producer);
    return out;
  }
  static BusBatch with(BusBatch batch, const std::function<void(v1::Event&)>& change) {
    for (std::string& bytes : *batch.mutable_events()) {
      v1::Event event;
      EXPECT_TRUE(event.ParseFromString(bytes));
      change(event);
      bytes = event.SerializeAsString();
    }
    return batch;
  }
  TransactionRow row(uint64_t number) const {
    return kTransactions.get(lab_.machine().view(), kLabScope, transaction_key(number)).value_or(TransactionRow());
  }
  static TransactionRow parsed(const ApplyResult& answer) {
    TransactionRow row;
    EXPECT_TRUE(answer && row.ParseFromString(*answer));
    return row;
  }
  static std::string reason(const ApplyResult& answer) { return answer ? "" : std::string(answer.error().reason()); }
  // Positions of a subscription with number 9, as its server with that epoch says.
  bool commit_position(uint64_t epoch, std::optional<uint64_t> offset, uint64_t moves = 0,
                       const std::vector<uint64_t>& above = {}) {
    internal::v1::BusCommitCommand command;
    command.set_epoch(epoch);
    auto& one = *command.add_commits();
    one.set_subscription(9);
    one.set_topic(7);
    if (offset) {
      one.mutable_position()->set_offset(*offset);
      one.mutable_position()->set_moves(moves);
      one.mutable_position()->mutable_above()->Assign(above.begin(), above.end());
    }
    internal::v1::BusCommitResult result;
    const auto answer = lab_.apply("bus.commit", command.SerializeAsString());
    EXPECT_TRUE(answer && result.ParseFromString(*answer));
    return !result.stale();
  }
  TransactionHoldResult hold(uint64_t number, const std::string& producer, const std::vector<uint64_t>& offsets,
                             uint64_t epoch = 1) {
    internal::v1::TransactionHoldCommand command;
    command.set_number(number);
    command.set_producer_id(producer);
    command.set_subscription(9);
    command.set_epoch(epoch);
    auto& one = *command.add_holds();
    one.set_topic(7);
    one.mutable_offsets()->Assign(offsets.begin(), offsets.end());
    TransactionHoldResult result;
    const auto answer = lab_.apply("transactions.hold", command.SerializeAsString());
    EXPECT_TRUE(answer && result.ParseFromString(*answer));
    return result;
  }
  std::vector<uint64_t> confirmed() const {
    const auto position = kPositions.get(lab_.machine().view(), kLabScope, position_key({7, 0}, 9));
    if (!position) return {};
    return {position->settled().begin(), position->settled().end()};
  }
  std::vector<uint64_t> held() const {
    std::vector<uint64_t> offsets;
    scan_held(lab_.machine().view(), kLabScope, 9, [&](const Held& held) {
      offsets.insert(offsets.end(), held.row.offsets().begin(), held.row.offsets().end());
    });
    return offsets;
  }

  BusLab lab_;
};

TEST_F(TransactionsTest, EventsGetTheirOffsetsWhenTheTransactionIsCommitted) {
  const uint64_t t = begun("p").row().number();
  ASSERT_TRUE(join(t, 3));
  const auto results = lab_.append({batch(t, "p", {"a", "b"}), batch(t, "p", {"x"}, 1)});
  EXPECT_TRUE(results[0].staged() && results[1].staged());
  lab_.append(BusLab::batch(7, 0, {"between"}));
  EXPECT_EQ(lab_.read(7, 0), Texts{"between"}) << "who reads waits for nobody";
  EXPECT_EQ(parsed(end(t, true)).state(), TransactionRow::STATE_COMMITTING);
  lab_.changes.clear();
  settle(t, "p", true);
  EXPECT_EQ(lab_.read(7, 0), (Texts{"between", "a", "b"}));
  EXPECT_EQ(lab_.read(7, 1), Texts{"x"});
  EXPECT_EQ(lab_.changes.size(), 2u) << "readers are told";
  EXPECT_EQ((*decode_notice(bus_group(0), {7, 0}, lab_.changes[0].payload))->next_offset(), 3u);
  EXPECT_EQ(parsed(settled(t)).state(), TransactionRow::STATE_COMMITTED);
  EXPECT_EQ(lab_.rows_of(kStagedTable) + lab_.rows_of(kUnsettledTable) + lab_.rows_of(machine::kLeaseTable), 0u);
  settle(t, "p", true);
  EXPECT_EQ(lab_.partition(7, 0).next_offset(), 3u) << "a repeat does nothing";
}

TEST_F(TransactionsTest, NothingIsLeftOfOneThatIsAborted) {
  const uint64_t t = begun("p").row().number();
  ASSERT_TRUE(join(t));
  lab_.append(batch(t, "p", {"a"}));
  EXPECT_NE(lab_.floor(), LogIndex(0)) << "the log is kept for what waits";
  EXPECT_EQ(parsed(end(t, false)).state(), TransactionRow::STATE_ABORTING);
  settle(t, "p", false);
  settled(t);
  EXPECT_EQ(row(t).state(), TransactionRow::STATE_ABORTED);
  EXPECT_EQ(row(t).reason(), TransactionRow::REASON_ASKED);
  EXPECT_EQ(lab_.read(7, 0), Texts());
  EXPECT_EQ(lab_.floor(), LogIndex(0));
}

TEST_F(TransactionsTest, WhatComesBehindTheEndDoesNothing) {
  const uint64_t t = begun("p").row().number();
  ASSERT_TRUE(join(t));
  ASSERT_TRUE(commit_position(1, 0));
  end(t, false);
  settle(t, "p", false);
  EXPECT_EQ(lab_.append(batch(t, "p", {"late"})).refusal(), BusBatchResult::REFUSAL_TRANSACTION_ENDED);
  EXPECT_TRUE(hold(t, "p", {0}).ended());
  settled(t);
  const uint64_t next = begun("p", 1).row().number();
  ASSERT_TRUE(join(next));
  EXPECT_TRUE(lab_.append(batch(next, "p", {"a"})).staged());
  EXPECT_EQ(lab_.append(batch(t, "p", {"later"})).refusal(), BusBatchResult::REFUSAL_TRANSACTION_ENDED);
  EXPECT_EQ(lab_.rows_of(kStagedTable), 1u);
  settle(t, "p", false);
  EXPECT_EQ(lab_.rows_of(kStagedTable), 1u) << "the end of an earlier one ends no later one";
}

TEST_F(TransactionsTest, ANewerEpochAbortsTheOneBeforeAndFencesIt) {
  const uint64_t t = begun("p").row().number();
  ASSERT_TRUE(join(t));
  lab_.append(batch(t, "p", {"a"}));
  const auto second = begun("p");
  EXPECT_FALSE(second.begun());
  EXPECT_EQ(second.epoch(), 2u);
  EXPECT_EQ(second.row().number(), t) << "which has to be settled first";
  EXPECT_EQ(reason(join(t)), "PRODUCER_FENCED");
  EXPECT_EQ(reason(end(t, true)), "PRODUCER_FENCED");
  EXPECT_EQ(reason(begin("p", 1)), "PRODUCER_FENCED");
  settle(t, "p", false);
  settled(t);
  const auto third = begun("p", second.epoch());
  EXPECT_TRUE(third.begun());
  EXPECT_EQ(third.row().epoch(), 2u);
  EXPECT_GT(third.row().number(), t);
  EXPECT_EQ(reason(begin("p", 2)), "TRANSACTION_OPEN");
  EXPECT_EQ(lab_.read(7, 0), Texts());
}

TEST_F(TransactionsTest, OneThatTouchedNothingEndsAtOnce) {
  const uint64_t t = begun("p").row().number();
  EXPECT_EQ(parsed(end(t, true)).state(), TransactionRow::STATE_COMMITTED);
  EXPECT_EQ(parsed(end(t, true)).state(), TransactionRow::STATE_COMMITTED) << "a repeat";
  EXPECT_EQ(reason(end(t, false)), "TRANSACTION_COMMITTED");
  EXPECT_EQ(reason(join(t)), "TRANSACTION_COMMITTED");
  EXPECT_EQ(reason(end(t + 1000, true)), "TRANSACTION_NOT_FOUND");
  EXPECT_TRUE(begun("p", 1).begun());
}

TEST_F(TransactionsTest, ItsTimeAbortsIt) {
  const uint64_t t = begun("p").row().number();
  ASSERT_TRUE(join(t));
  const auto leases = lab_.machine().leases();
  ASSERT_EQ(leases.size(), 1u);
  EXPECT_EQ(leases.begin()->second.ttl_ms, 1'000);
  ASSERT_TRUE(lab_.apply("machine.expire",
                         machine::encode_expire(leases.begin()->first, leases.begin()->second.generation, Term(1))));
  EXPECT_EQ(row(t).state(), TransactionRow::STATE_ABORTING);
  EXPECT_EQ(reason(end(t, true)), "TRANSACTION_EXPIRED");
  EXPECT_EQ(reason(join(t)), "TRANSACTION_EXPIRED");
  EXPECT_TRUE(end(t, false)) << "it is aborted, as was asked for";
}

TEST_F(TransactionsTest, ItHasLimits) {
  const uint64_t t = begun("p").row().number();
  ASSERT_TRUE(join(t, 15));
  EXPECT_EQ(reason(join(t, 4, 2)), "TRANSACTION_TOO_LARGE");
  EXPECT_EQ(row(t).events(), 15u) << "what is refused counts nothing";
  EXPECT_TRUE(join(t, 3, 2));
  EXPECT_EQ(reason(begin("q", 0, 1)), "TRANSACTIONS_EXHAUSTED");
  end(t, false);
  settle(t, "p", false);
  EXPECT_EQ(reason(begin("q", 0, 1)), "TRANSACTIONS_EXHAUSTED") << "it is not settled";
  settled(t);
  EXPECT_TRUE(begin("q", 0, 1).has_value());
}

TEST_F(TransactionsTest, ItSettlesInStepsAndKeepsItsOrder) {
  const uint64_t t = begun("p").row().number();
  ASSERT_TRUE(join(t, 6));
  for (const char* text : {"a", "b", "c"}) lab_.append(batch(t, "p", {text, std::string(text) + "2"}));
  end(t, true);
  EXPECT_EQ(settle(t, "p", true, 1), 3);
  EXPECT_EQ(lab_.read(7, 0), (Texts{"a", "a2", "b", "b2", "c", "c2"}));
}

TEST_F(TransactionsTest, IdsAndVersionsCountFromTheCommitOn) {
  internal::v1::BusSettings settings;
  settings.set_dedup_window_ms(60'000);
  lab_.open(7, 1, settings);
  const auto named = [](v1::Event& event) {
    event.set_id("id");
    event.set_key("k");
  };
  auto first = with(BusLab::batch(7, 0, {"first"}), [](v1::Event& event) { event.set_key("k"); });
  first.set_expected_version(0);
  EXPECT_EQ(lab_.append(first).version(), 1u);
  const uint64_t t = begun("p").row().number();
  ASSERT_TRUE(join(t));
  lab_.append(with(batch(t, "p", {"staged"}), named));
  lab_.append(with(BusLab::batch(7, 0, {"plain"}), named));
  const uint64_t u = begun("q").row().number();
  ASSERT_TRUE(join(u));
  lab_.append(with(batch(u, "q", {"other"}), [](v1::Event& event) { event.set_key("k"); }));
  settle(t, "p", true);
  settle(u, "q", true);
  EXPECT_EQ(lab_.read(7, 0), (Texts{"first", "plain", "other"})) << "the id came first outside";
  auto next = with(BusLab::batch(7, 0, {"next"}), [](v1::Event& event) { event.set_key("k"); });
  next.set_expected_version(3);
  EXPECT_EQ(lab_.append(next).version(), 4u);
}

TEST_F(TransactionsTest, WhatATopicHadGoesWithIt) {
  const uint64_t t = begun("p").row().number();
  ASSERT_TRUE(join(t));
  lab_.append(batch(t, "p", {"a"}));
  internal::v1::BusDropCommand drop;
  drop.set_topic(7);
  drop.set_rows_max(100);
  lab_.run_to_end("drop", drop);
  end(t, true);
  settle(t, "p", true);
  EXPECT_EQ(lab_.floor(), LogIndex(0));
  EXPECT_EQ(lab_.rows_of(kIndexTable) + lab_.rows_of(kPartitionTable), 0u);
}

TEST_F(TransactionsTest, ConfirmationsCountWhenItIsCommitted) {
  ASSERT_TRUE(commit_position(1, 0));
  const uint64_t t = begun("p").row().number();
  ASSERT_TRUE(join(t, 0, 2));
  EXPECT_FALSE(hold(t, "p", {5}).stale());
  hold(t, "p", {3, 5});
  EXPECT_EQ(held(), (std::vector<uint64_t>{3, 5}));
  lab_.changes.clear();
  settle(t, "p", true);
  EXPECT_EQ(confirmed(), (std::vector<uint64_t>{3, 5}));
  ASSERT_EQ(lab_.changes.size(), 1u);
  EXPECT_EQ(lab_.changes[0].kind, kHeldChange);
  EXPECT_EQ(held(), std::vector<uint64_t>());
}

TEST_F(TransactionsTest, AServerThatHasNotHeardOfAConfirmationDoesNotUndoIt) {
  lab_.feature_level = services::kTransactionsLevel;
  ASSERT_TRUE(commit_position(1, 0));
  const uint64_t t = begun("p").row().number();
  ASSERT_TRUE(join(t, 0, 2));
  hold(t, "p", {3, 5});
  settle(t, "p", true);
  ASSERT_TRUE(commit_position(1, 2, 0, {4}));
  EXPECT_EQ(confirmed(), (std::vector<uint64_t>{3, 5}));
  ASSERT_TRUE(commit_position(1, 2, 0, {3, 4}));
  EXPECT_EQ(confirmed(), std::vector<uint64_t>{5}) << "it has one of them now";
  ASSERT_TRUE(commit_position(2, std::nullopt));
  EXPECT_EQ(confirmed(), std::vector<uint64_t>{5}) << "who takes over finds it";
  ASSERT_TRUE(commit_position(2, 6));
  EXPECT_EQ(confirmed(), std::vector<uint64_t>());
}

TEST_F(TransactionsTest, OnlyWhoServesTheSubscriptionHolds) {
  const uint64_t t = begun("p").row().number();
  ASSERT_TRUE(join(t, 0, 1));
  EXPECT_TRUE(hold(t, "p", {0}).stale()) << "nobody serves it";
  ASSERT_TRUE(commit_position(1, 0));
  ASSERT_TRUE(commit_position(2, std::nullopt));
  EXPECT_TRUE(hold(t, "p", {0}, 1).stale());
  EXPECT_FALSE(hold(t, "p", {0}, 2).stale());
}

TEST_F(TransactionsTest, ASeekVoidsWhatWasHeldAndConfirmedBefore) {
  lab_.feature_level = services::kTransactionsLevel;
  ASSERT_TRUE(commit_position(1, 0));
  const uint64_t t = begun("p").row().number(), u = begun("q").row().number();
  ASSERT_TRUE(join(t, 0, 1));
  ASSERT_TRUE(join(u, 0, 1));
  hold(t, "p", {3});
  hold(u, "q", {4});
  settle(u, "q", true);
  EXPECT_EQ(confirmed(), std::vector<uint64_t>{4});
  ASSERT_TRUE(commit_position(1, 1, 1));
  EXPECT_EQ(confirmed(), std::vector<uint64_t>());
  EXPECT_EQ(held(), std::vector<uint64_t>());
  hold(t, "p", {6});
  EXPECT_EQ(held(), std::vector<uint64_t>{6}) << "and not what was held before";
  ASSERT_TRUE(commit_position(1, 1, 1)) << "a repeat of the seek voids nothing more";
  settle(t, "p", true);
  EXPECT_EQ(confirmed(), std::vector<uint64_t>{6});
}

TEST_F(TransactionsTest, WhoIsSilentForLongIsForgotten) {
  std::vector<uint64_t> numbers;
  for (const char* producer : {"done", "busy", "open"}) {
    numbers.push_back(begun(producer).row().number());
    ASSERT_TRUE(join(numbers.back()));
    lab_.append(batch(numbers.back(), producer, {"x"}));
    if (producer == std::string("open")) continue;
    end(numbers.back(), true);
    settle(numbers.back(), producer, true);
    settled(numbers.back());
  }
  lab_.now_ms += 1'000;
  const uint64_t again = begun("busy", 1).row().number();
  ASSERT_TRUE(join(again));
  lab_.append(batch(again, "busy", {"y"}));
  internal::v1::TransactionRetireCommand command;
  command.set_idle_ms(1'000);
  for (const char* producer : {"done", "busy", "open", "never"}) {
    command.add_producers(producer);
    command.add_guards(producer);
  }
  ASSERT_TRUE(lab_.apply("transactions.retire", command.SerializeAsString()));
  EXPECT_EQ(lab_.rows_of(kTransactionProducerTable), 2u) << "one has begun another one, one has an open one";
  EXPECT_EQ(lab_.rows_of(kTransactionTable), 3u);
  EXPECT_EQ(lab_.rows_of(kGuardTable), 1u);
  EXPECT_EQ(begun("done").row().epoch(), 1u) << "as if it had never been there";
  end(numbers[2], true);
  settle(numbers[2], "open", true);
  EXPECT_EQ(lab_.read(7, 0), (Texts{"x", "x", "x"})) << "what is open goes on without its guard";
  EXPECT_EQ(lab_.append(batch(numbers[2], "open", {"late"})).refusal(), BusBatchResult::REFUSAL_TRANSACTION_ENDED);
}

TEST_F(TransactionsTest, AStrayIsSettledWhateverItsProducerHasBegunSince) {
  ASSERT_TRUE(commit_position(1, 0));
  const uint64_t lost = 1000, next = 1001, other = 1002;  // the coordinator knows none of them
  lab_.append(batch(lost, "p", {"lost"}));
  hold(other, "q", {3});
  lab_.append(batch(next, "p", {"next"}));
  settle(lost, "p", false);
  EXPECT_EQ(lab_.rows_of(kStagedTable), 2u) << "its producer is further on";
  internal::v1::TransactionSettleCommand command;
  command.set_stray(true);
  for (const uint64_t number : {lost, other}) {
    command.set_number(number);
    ASSERT_TRUE(lab_.apply("transactions.settle", command.SerializeAsString()));
  }
  EXPECT_EQ(lab_.rows_of(kStagedTable), 1u);
  EXPECT_EQ(held(), std::vector<uint64_t>());
  EXPECT_TRUE(hold(other, "q", {4}).ended()) << "who serves the subscription sees that it has ended";
  settle(next, "p", true);
  EXPECT_EQ(lab_.read(7, 0), Texts{"next"});
}

TEST_F(TransactionsTest, TheLastTwoOfAProducerAreKnown) {
  std::vector<uint64_t> numbers;
  for (int i = 0; i < 4; ++i) {
    numbers.push_back(begun("p", 1).row().number());
    end(numbers.back(), true);
  }
  EXPECT_EQ(lab_.rows_of(kTransactionTable), 2u);
  EXPECT_EQ(row(numbers[2]).number(), numbers[2]);
  EXPECT_EQ(row(numbers[3]).number(), numbers[3]);
}

TEST(TransactionId, IsReadBackAndSortsByNumber) {
  std::string before;
  for (const uint64_t number : {uint64_t{1}, uint64_t{31}, uint64_t{32}, uint64_t{1} << 40, UINT64_MAX}) {
    const std::string id = transaction_id(number);
    EXPECT_EQ(transaction_number(id), number);
    EXPECT_LT(before, id);
    before = id;
  }
  for (const char* none : {"", "txn_", "txn_000000000000", "txn_000000000000U", "evt_0000000000001",
                           "txn_Z000000000000", "txn_00000000000001"}) {
    EXPECT_EQ(transaction_number(none), std::nullopt) << none;
  }
}

}  // namespace
}  // namespace uccp::events
