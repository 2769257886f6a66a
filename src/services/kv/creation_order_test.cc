// Questions about the order of creation inside of transactions are answered from memory, and say what a scan says.
#include "services/kv/creation_order.h"

#include <gtest/gtest.h>

#include "base/random.h"
#include "services/kv/kv_test_lab.h"

namespace uccp::kv {
namespace {

v1::RangeRequest by_creation(const std::string& prefix, bool descending, int64_t limit, int64_t max_create = 0) {
  v1::RangeRequest range;
  range.set_key(prefix);
  range.set_range_end(machine::prefix_end(prefix));
  range.set_order_by(v1::KEY_ORDER_CREATE_REVISION);
  range.set_descending(descending);
  range.set_limit(limit);
  range.set_max_create_revision(max_create);
  return range;
}

class CreationOrderTest : public ::testing::TestWithParam<uint64_t> {
 protected:
  uint64_t below(uint64_t bound) { return random_.below(bound); }
  std::string key() {
    static constexpr const char* kFolders[] = {"", "q/", "q/", "q/r/", "s/"};
    return kFolders[below(5)] + std::string(1, static_cast<char>('a' + below(6)));
  }

  // What the transaction says of the state as it leaves it, beside a scan of that state.
  void ask(v1::TxnRequest txn, bool may_fail) {
    const std::string prefix = below(3) == 0 ? "q/r/" : below(4) == 0 ? "s/" : "q/";
    auto question = by_creation(prefix, below(2) == 0, 1 + static_cast<int64_t>(below(3)));
    if (below(2) == 0) question.set_max_create_revision(static_cast<int64_t>(1 + below(lab_.head().revision + 2)));
    if (below(4) == 0) question.set_min_create_revision(static_cast<int64_t>(1 + below(lab_.head().revision + 2)));
    *txn.add_success()->mutable_range() = question;
    const auto answer = lab_.txn(txn);
    if (!answer && may_fail) return;
    ASSERT_TRUE(answer.has_value()) << answer.error().to_string();
    const auto& told = answer->responses(answer->responses_size() - 1).range();
    const auto scanned = lab_.range(question);
    ASSERT_TRUE(scanned.has_value());
    EXPECT_EQ(told.SerializeAsString(), scanned->SerializeAsString()) << question.ShortDebugString();
  }

  void step() {
    v1::TxnRequest txn;
    bool may_fail = false;
    switch (below(6)) {
      case 0: break;
      case 1: lab_.erase(key()); break;
      case 2: {
        v1::DeleteRequest all;
        all.set_prefix(key());
        ASSERT_TRUE(lab_.erase(all).has_value());
        break;
      }
      case 3:
        // Written and taken back: the lease does not exist.
        txn.add_success()->mutable_put()->set_key(key());
        txn.add_success()->mutable_delete_()->set_prefix("s/z");
        txn.add_success()->mutable_put()->set_key("leased");
        txn.mutable_success(2)->mutable_put()->set_lease(99);
        may_fail = true;
        break;
      case 4: txn.add_success()->mutable_delete_()->set_key(key()); break;
      default:
        for (uint64_t n = below(3); n > 0; --n) {
          const std::string one = key();
          bool there = false;
          for (const auto& operation : txn.success()) there = there || operation.put().key() == one;
          if (!there) txn.add_success()->mutable_put()->set_key(one);
        }
    }
    ask(std::move(txn), may_fail);
  }

  KvLab lab_;
  SeededRandom random_{GetParam()};
};

TEST_P(CreationOrderTest, AnswersAreThoseOfAScan) {
  for (int i = 0; i < 400 && !HasFatalFailure(); ++i) step();
}

INSTANTIATE_TEST_SUITE_P(Seeds, CreationOrderTest, ::testing::Range<uint64_t>(1, 9));

TEST(CreationOrder, FollowsWhatItKnows) {
  CreationOrder order;
  const machine::Scope scope{"t", "n"};
  EXPECT_EQ(order.find(scope, "q/"), nullptr);
  order.put(scope, "q/a", 2, 10);
  order.learn(scope, "q/", {{2, "q/a"}});
  order.put(scope, "q/b/c", 3, 10);
  order.put(scope, "p/x", 4, 10);
  order.put({"t", "other"}, "q/y", 4, 10);
  ASSERT_NE(order.find(scope, "q/"), nullptr);
  EXPECT_EQ(*order.find(scope, "q/"), (CreationOrder::Keys{{2, "q/a"}, {3, "q/b/c"}}));
  order.erase(scope, "q/a", 2);
  EXPECT_EQ(*order.find(scope, "q/"), (CreationOrder::Keys{{3, "q/b/c"}}));
  order.forget();
  EXPECT_EQ(order.find(scope, "q/"), nullptr);
  EXPECT_EQ(order.keys(), 0u);
}

TEST(CreationOrder, KeepsNoMoreThanItsLimits) {
  CreationOrder order;
  const machine::Scope scope{"t", "n"};
  for (size_t i = 0; i < CreationOrder::kPrefixesMax + 10; ++i) order.learn(scope, std::to_string(i) + "/", {{1, "k"}});
  EXPECT_EQ(order.keys(), CreationOrder::kPrefixesMax);
  EXPECT_EQ(order.find(scope, "9/"), nullptr);
  EXPECT_NE(order.find(scope, "10/"), nullptr);

  order.learn(scope, "large/", {});
  order.put(scope, "large/a", 2, CreationOrder::kRowBytesMax + 1);
  EXPECT_EQ(order.find(scope, "large/"), nullptr);

  order.learn(scope, "many/", {});
  for (size_t i = 0; i <= CreationOrder::kKeysOfPrefixMax; ++i) order.put(scope, "many/" + std::to_string(i), 2, 1);
  EXPECT_EQ(order.find(scope, "many/"), nullptr);

  for (size_t i = 0; i < 20; ++i) {
    CreationOrder::Keys keys;
    for (size_t k = 0; k < CreationOrder::kKeysOfPrefixMax; ++k) keys.emplace(k, "k");
    order.learn(scope, "big" + std::to_string(i) + "/", std::move(keys));
  }
  EXPECT_LE(order.keys(), CreationOrder::kKeysMax);
  EXPECT_NE(order.find(scope, "big19/"), nullptr);
}

TEST(CreationOrder, IsVoidForAnotherState) {
  // The domain is told at each opening, which is also how a snapshot or a restored backup becomes the state.
  struct Told final : machine::Domain {
    std::string_view name() const override { return "told"; }
    std::map<std::string, machine::ApplyFunction, std::less<>> commands() override { return {}; }
    void on_state_opened() override { ++times; }
    int times = 0;
  } told;
  storage::MemoryKv kv;
  machine::Machine machine(kCoreGroup, kv, {&told});
  ASSERT_TRUE(machine.open().is_ok());
  ASSERT_TRUE(machine.open().is_ok());
  EXPECT_EQ(told.times, 2);
}

}  // namespace
}  // namespace uccp::kv
