// What a group has of transactions that the coordinator has settled or does not know, as after a restore.
#include "services/events/transactions.h"

#include "services/events/test_log_work.h"

namespace uccp::events {
namespace {

struct NoTime final : Clock {
  BootTime boot() const override { return {}; }
  WallTime wall() const override { return {}; }
};

class Strays : public LogWork {
 protected:
  uint64_t begin(const std::string& producer) {
    internal::v1::TransactionBeginCommand command;
    command.set_producer_id(producer);
    command.set_timeout_ms(1'000);
    command.set_open_max(10);
    internal::v1::TransactionBeginResult result;
    EXPECT_TRUE(result.ParseFromString(lab_.apply("transactions.begin", command.SerializeAsString()).value_or("")));
    return result.row().number();
  }
  void stage(uint64_t number, const std::string& producer, const std::string& text) {
    internal::v1::BusBatch batch = BusLab::batch(7, 0, {text});
    batch.set_transaction(number);
    batch.set_transaction_producer(producer);
    EXPECT_TRUE(lab_.append(batch).staged());
  }
  // The coordinator has settled it, and this group has not heard of that.
  void settle_elsewhere(uint64_t number, bool commit) {
    internal::v1::TransactionEndCommand command;
    command.set_number(number);
    command.set_commit(commit);
    ASSERT_TRUE(lab_.apply("transactions.end", command.SerializeAsString()));
  }
  void look() {
    transactions_.look_for_strays(bus_group(0), lab_.machine().view());
    queue_.run();
  }

  NoTime clock_;
  call::PageTokenSigner signer_{"key"};
  Transactions transactions_{{.events_per_settle = 1},
                             {*this, *this, *this, queue_, queue_, clock_, metrics_, signer_, [] { return 2u; }}};
};

TEST_F(Strays, TheyEndAsTheCoordinatorSaysAndAreAbortedIfItDoesNotKnowThem) {
  const uint64_t committed = begin("a"), aborted = begin("b"), open = begin("c");
  const uint64_t unknown = 1'000;
  stage(committed, "a", "committed");
  stage(committed, "a", "in two steps");
  stage(aborted, "b", "aborted");
  stage(open, "c", "open");
  stage(unknown, "d", "unknown");
  settle_elsewhere(committed, true);
  settle_elsewhere(aborted, false);
  look();
  EXPECT_EQ(lab_.read(7, 0), (std::vector<std::string>{"committed", "in two steps"}));
  EXPECT_EQ(lab_.rows_of(kStagedTable), 1u) << "who is open goes its way";
  proposed_ = 0;
  look();
  EXPECT_EQ(proposed_, 0);
}

}  // namespace
}  // namespace uccp::events
