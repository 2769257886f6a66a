// Who is silent for long is forgotten, by commands of a bounded size.
#include "services/events/silent_producers.h"

#include "services/events/test_log_work.h"
#include "services/events/transaction_rows.h"

namespace uccp::events {
namespace {

struct ManualClock final : Clock {
  BootTime boot() const override { return {ms * 1000}; }
  WallTime wall() const override { return {ms * 1000}; }
  int64_t ms = 0;
};

class SilentProducersTest : public LogWork {
 protected:
  void publish_as(const std::string& producer, uint64_t sequence, internal::v1::BusBatchResult::Refusal refusal) {
    internal::v1::BusBatch batch = BusLab::batch(7, 0, {"x"});
    batch.set_producer_id(producer);
    batch.set_producer_epoch(1);
    batch.set_sequence(sequence);
    EXPECT_EQ(lab_.append(batch).refusal(), refusal) << producer;
  }
  // As the group's keeper does, when machine time stands where the last command left it.
  void look(int64_t ms_later = 0) {
    clock_.ms += ms_later;
    silent_.look(bus_group(0), lab_.machine().view(), lab_.machine().view().machine_time_ms(),
                 [this] { return leads_; });
    queue_.run();
  }

  static constexpr auto kStored = internal::v1::BusBatchResult::REFUSAL_UNSPECIFIED;
  static constexpr auto kUnknown = internal::v1::BusBatchResult::REFUSAL_UNKNOWN_PRODUCER;
  ManualClock clock_;
  SilentProducers silent_{{.idle_ms = 60'000, .rows_per_look = 25, .rows_per_command = 10},
                          {*this, *this, fetcher_, queue_, queue_, metrics_},
                          clock_};
};

TEST_F(SilentProducersTest, WhoPublishedNothingForSoLongIsForgottenAndToldSo) {
  publish_as("silent", 1, kStored);
  publish_as("busy", 1, kStored);
  lab_.now_ms += 59'999;
  publish_as("busy", 2, kStored);
  look();
  EXPECT_EQ(proposed_, 0) << "nobody is silent for so long";
  lab_.now_ms += 1;
  publish_as("busy", 3, kStored);
  look(5'999);
  EXPECT_EQ(proposed_, 0) << "it looks every tenth of the time";
  look(1);
  EXPECT_EQ(proposed_, 1);
  EXPECT_EQ(lab_.rows_of(kProducerTable), 1u);
  publish_as("silent", 2, kUnknown);
  publish_as("silent", 1, kStored);
  publish_as("busy", 4, kStored);
  EXPECT_EQ(metrics_.value("uccp_bus_producers_forgotten_total"), 1);
}

TEST_F(SilentProducersTest, ItGoesInStepsAndOnlyWhereThisNodeLeads) {
  for (int i = 0; i < 40; ++i) publish_as("p" + std::to_string(i), 1, kStored);
  lab_.now_ms += 60'000;
  publish_as("now", 1, kStored);
  before_proposal_ = [this] { leads_ = false; };
  look();
  EXPECT_EQ(lab_.rows_of(kProducerTable), 31u) << "the next command is not proposed";
  leads_ = true;
  look(6'000);
  EXPECT_EQ(lab_.rows_of(kProducerTable), 6u) << "in three commands, as many as one look names";
  look(6'000);
  EXPECT_EQ(lab_.rows_of(kProducerTable), 1u);
}

TEST_F(SilentProducersTest, GuardsAndProducersOfTransactionsAreForgotten) {
  internal::v1::TransactionBeginCommand begin;
  begin.set_producer_id("p");
  begin.set_timeout_ms(1'000);
  begin.set_open_max(10);
  const auto answer = lab_.apply("transactions.begin", begin.SerializeAsString());
  internal::v1::TransactionBeginResult begun;
  ASSERT_TRUE(answer && begun.ParseFromString(*answer));
  internal::v1::BusBatch batch = BusLab::batch(7, 0, {"x"});
  batch.set_transaction(begun.row().number());
  batch.set_transaction_producer("p");
  EXPECT_TRUE(lab_.append(batch).staged());
  internal::v1::TransactionEndCommand end;
  end.set_number(begun.row().number());
  ASSERT_TRUE(lab_.apply("transactions.end", end.SerializeAsString()));
  EXPECT_EQ(lab_.rows_of(kGuardTable) + lab_.rows_of(kTransactionProducerTable), 2u);
  lab_.now_ms += 60'000;
  publish_as("now", 1, kStored);
  look();
  EXPECT_EQ(lab_.rows_of(kGuardTable) + lab_.rows_of(kTransactionProducerTable) + lab_.rows_of(kTransactionTable), 0u);
}

TEST_F(SilentProducersTest, NodesOfBeforeAreNotAsked) {
  lab_.feature_level = 1;
  publish_as("p", 1, kStored);
  publish_as("q", 5, internal::v1::BusBatchResult::REFUSAL_SEQUENCE_GAP);
  lab_.now_ms += 60'000;
  publish_as("now", 1, kStored);
  look();
  EXPECT_EQ(proposed_, 0);
}

}  // namespace
}  // namespace uccp::events
