// Random operations on names above and below each other: no two holds in each other's way, nobody waits for what is
// free, and everybody is served in the end.
#include "services/locks/locks_tree.h"

#include "base/random.h"
#include "services/locks/locks_test_lab.h"

namespace uccp::locks {
namespace {

class TreeTrial {
 public:
  explicit TreeTrial(uint64_t seed) : random_(seed) {}

  void step() {
    const std::string name = kNames[random_.below(std::size(kNames))];
    switch (random_.below(6)) {
      case 0:
      case 1:
      case 2: acquire(name); break;
      case 3: release(name); break;
      case 4: abandon(name); break;
      default: lab_.advance(static_cast<int64_t>(random_.below(300))); break;
    }
    check();
  }
  void drain() {
    for (int round = 0; round < 2000 && release_any(); ++round) check();
    for (const char* name : kNames) {
      EXPECT_TRUE(lab_.waiters(kLock, name).empty()) << name;
      EXPECT_TRUE(lab_.holders(kLock, name).empty()) << name;
      const auto row = lab_.row(kLock, name);
      EXPECT_TRUE(!row || (row->trees() == 0 && row->tree_waiters() == 0)) << name;
    }
  }
  int granted_later = 0;

 private:
  static constexpr const char* kNames[] = {"a", "a/b", "a/b/c", "a/b/d", "a/e", "ab", "f"};

  void acquire(const std::string& name) {
    internal::v1::AcquireCommand command;
    command.set_kind(kLock);
    command.set_name(name);
    auto& holder = *command.mutable_holder();
    holder.set_owner("o" + std::to_string(random_.below(12)));
    holder.set_secret(++secrets_);
    holder.set_permits(random_.below(3) == 0 ? 1 : kLockPermits);
    holder.set_priority(static_cast<int32_t>(random_.below(3)));
    holder.set_tree(random_.below(3) == 0);
    holder.set_ttl_ms(200 + static_cast<int64_t>(random_.below(400)));
    command.set_wait(random_.below(5) != 0);
    command.set_preempt(random_.below(8) == 0);
    command.set_waiter_ttl_ms(2000);
    const auto result = lab_.apply("permits.acquire", command.SerializeAsString());
    if (!result) {
      EXPECT_TRUE(result.error().reason() == "LOCK_HELD" || result.error().reason() == "DEADLOCK");
    }
  }
  bool release(const std::string& name) {
    const auto holders = lab_.holders(kLock, name);
    if (holders.empty()) return false;
    const auto& holder = holders[random_.below(holders.size())];
    internal::v1::HolderCommand command;
    command.set_kind(kLock);
    command.set_name(name);
    command.set_lease(holder.lease());
    command.set_secret(holder.secret());
    lab_.changes.clear();
    EXPECT_TRUE(lab_.apply("permits.release", command.SerializeAsString()).has_value());
    for (const auto& change : lab_.changes) granted_later += change.kind == static_cast<uint8_t>(ChangeKind::kAcquired);
    return true;
  }
  bool release_any() {
    for (const char* name : kNames) {
      if (release(name)) return true;
    }
    return false;
  }
  void abandon(const std::string& name) {
    const auto waiters = lab_.waiters(kLock, name);
    if (waiters.empty()) return;
    const auto& waiter = waiters[random_.below(waiters.size())];
    internal::v1::AbandonCommand command;
    command.set_kind(kLock);
    command.set_name(name);
    command.set_waiter(waiter.id());
    command.set_rank(waiter.rank());
    EXPECT_TRUE(lab_.apply("permits.abandon", command.SerializeAsString()).has_value());
  }
  void check() {
    for (const char* name : kNames) lab_.check(kLock, name);
  }

  LockLab lab_;
  SeededRandom random_;
  uint64_t secrets_ = 0;
};

TEST(LocksTree, NamesAboveAreTheParentsFromTheTop) {
  EXPECT_EQ(names_above("a/b/c"), (std::vector<std::string>{"a", "a/b"}));
  EXPECT_TRUE(names_above("a").empty());
}

TEST(LocksTree, HoldsOfOneTreeExcludeEachOtherAndNobodyIsForgotten) {
  int granted_later = 0;
  for (uint64_t seed = 1; seed <= 40 && !::testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    TreeTrial trial(seed);
    for (int step = 0; step < 150; ++step) trial.step();
    trial.drain();
    granted_later += trial.granted_later;
  }
  EXPECT_GT(granted_later, 200) << "the trials have to make somebody wait";
}

// A tree that ends wakes all names below it, more than one command serves.
TEST(LocksTree, ManyNamesBelowAreServedInSteps) {
  LockLab lab;
  const auto acquire = [&](const std::string& name, bool tree) {
    internal::v1::AcquireCommand command;
    command.set_kind(kLock);
    command.set_name(name);
    auto& holder = *command.mutable_holder();
    holder.set_owner(name);
    holder.set_permits(kLockPermits);
    holder.set_tree(tree);
    holder.set_ttl_ms(tree ? 1000 : 1'000'000);
    command.set_wait(true);
    command.set_waiter_ttl_ms(1'000'000);
    EXPECT_TRUE(lab.apply("permits.acquire", command.SerializeAsString()).has_value());
  };
  constexpr int kBelow = kTreeServedMax * 2 + 10;
  acquire("top", true);
  for (int i = 0; i < kBelow; ++i) acquire("top/" + std::to_string(i), false);
  lab.advance(1000);
  int held = 0;
  for (int i = 0; i < kBelow; ++i) held += !lab.holders(kLock, "top/" + std::to_string(i)).empty();
  EXPECT_EQ(held, kTreeServedMax);
  lab.advance(10);
  for (int i = 0; i < kBelow; ++i) EXPECT_FALSE(lab.holders(kLock, "top/" + std::to_string(i)).empty()) << i;
}

}  // namespace
}  // namespace uccp::locks
