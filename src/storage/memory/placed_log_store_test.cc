#include "storage/placed_log_store.h"

#include "storage/conformance/log_store_conformance.h"
#include "storage/memory/memory_log_store.h"

namespace uccp::storage {
namespace {

// A store that a test keeps while the one above it comes and goes.
class Kept final : public LogStore {
 public:
  Kept(MemoryLogStore& store, std::vector<std::string>* calls, std::string name)
      : store_(store), calls_(calls), name_(std::move(name)) {}

  std::vector<GroupId> groups() override { return store_.groups(); }
  Result<GroupLog> load(GroupId group) override { return store_.load(group); }
  Status append(GroupId group, std::span<const Entry> entries) override { return store_.append(group, entries); }
  Status set_hard_state(GroupId group, const HardState& state) override { return store_.set_hard_state(group, state); }
  Status begin_sync() override {
    calls_->push_back("begin " + name_);
    return {};
  }
  Status sync() override {
    calls_->push_back("sync " + name_);
    if (syncs_left == 0) return Status(Code::kUnavailable, "LOG_STORE_FAILED", "the test says so");
    --syncs_left;
    return store_.sync();
  }
  Result<std::vector<Entry>> read(GroupId group, LogIndex from, LogIndex to, uint64_t bytes_max) override {
    return store_.read(group, from, to, bytes_max);
  }
  Result<Term> term(GroupId group, LogIndex index) override { return store_.term(group, index); }
  Status truncate_before(GroupId group, LogPosition position) override {
    return store_.truncate_before(group, position);
  }
  Status remove(GroupId group) override { return store_.remove(group); }
  uint64_t size_bytes() override { return store_.size_bytes(); }
  uint64_t sync_count() const override { return store_.sync_count(); }
  Status close() override { return store_.close(); }

  uint64_t syncs_left = UINT64_MAX;

 private:
  MemoryLogStore& store_;
  std::vector<std::string>* calls_;
  const std::string name_;
};

constexpr GroupId kFirst{1};
// One of the groups that the suite writes to at random.
constexpr GroupId kOwner{2};

struct Stores {
  MemoryLogStore shared, own;
  std::vector<std::string> calls;
  uint64_t own_syncs = UINT64_MAX, shared_syncs = UINT64_MAX;

  Result<std::unique_ptr<PlacedLogStore>> open(bool placed) {
    auto first = std::make_unique<Kept>(shared, &calls, "shared");
    auto second = std::make_unique<Kept>(own, &calls, "own");
    first->syncs_left = shared_syncs;
    second->syncs_left = own_syncs;
    PlacedLogStore::Own owners;
    owners[kOwner] = std::move(second);
    return placed ? PlacedLogStore::open(std::move(first), std::move(owners), {})
                  : PlacedLogStore::open(std::move(first), {}, std::move(owners));
  }
  void crash() {
    shared.crash();
    own.crash();
  }
};

class PlacedHarness final : public LogStoreHarness {
 public:
  PlacedHarness() { restart(); }
  LogStore& store() override { return *store_; }
  void crash() override {
    stores_.crash();
    restart();
  }
  void restart() override { store_ = std::move(*stores_.open(true)); }

 private:
  Stores stores_;
  std::unique_ptr<PlacedLogStore> store_;
};

std::unique_ptr<LogStoreHarness> make_harness() { return std::make_unique<PlacedHarness>(); }

INSTANTIATE_TEST_SUITE_P(Placed, LogStoreConformance, testing::Values(under_test(&make_harness)));

TEST(PlacedLogStore, AGroupOfItsOwnLeavesTheSharedLogAlone) {
  Stores stores;
  auto store = std::move(*stores.open(true));
  ASSERT_TRUE(store->append(kFirst, make_entries(1, 3, 1)).is_ok());
  ASSERT_TRUE(store->append(kOwner, make_entries(1, 5, 1)).is_ok());
  ASSERT_TRUE(store->sync().is_ok());
  EXPECT_EQ(stores.shared.groups(), std::vector<GroupId>{kFirst});
  EXPECT_EQ(stores.own.groups(), std::vector<GroupId>{kOwner});
}

TEST(PlacedLogStore, SyncsAreBegunTogetherAndOnlyWhereSomethingWasWritten) {
  Stores stores;
  auto store = std::move(*stores.open(true));
  stores.calls.clear();
  ASSERT_TRUE(store->append(kFirst, make_entries(1, 3, 1)).is_ok());
  ASSERT_TRUE(store->sync().is_ok());
  EXPECT_EQ(stores.calls, std::vector<std::string>{"sync shared"});
  stores.calls.clear();
  ASSERT_TRUE(store->append(kFirst, make_entries(4, 4, 1)).is_ok());
  ASSERT_TRUE(store->append(kOwner, make_entries(1, 5, 1)).is_ok());
  ASSERT_TRUE(store->sync().is_ok());
  ASSERT_EQ(stores.calls.size(), 4u);
  for (size_t i = 0; i < 4; ++i) EXPECT_TRUE(stores.calls[i].starts_with(i < 2 ? "begin" : "sync")) << stores.calls[i];
}

TEST(PlacedLogStore, AChangedPlacementMovesTheLogBothWaysOverCrashes) {
  // Each sync of the move in turn is the one that does not come back.
  for (uint64_t syncs = 0; syncs <= 2; ++syncs) {
    Stores stores;
    {
      auto store = std::move(*stores.open(false));
      ASSERT_TRUE(store->append(kFirst, make_entries(1, 3, 1)).is_ok());
      ASSERT_TRUE(store->append(kOwner, make_entries(1, 9, 2, 1000)).is_ok());
      ASSERT_TRUE(store->set_hard_state(kOwner, {Term(2), NodeId(3), LogIndex(7)}).is_ok());
      ASSERT_TRUE(store->truncate_before(kOwner, {Term(2), LogIndex(4)}).is_ok());
      ASSERT_TRUE(store->sync().is_ok());
    }
    const std::string before = dump(stores.shared);
    for (const bool placed : {true, false}) {
      stores.own_syncs = stores.shared_syncs = syncs;
      (void)stores.open(placed);
      stores.crash();
      stores.own_syncs = stores.shared_syncs = UINT64_MAX;
      auto store = std::move(*stores.open(placed));
      EXPECT_EQ(dump(*store), before);
      EXPECT_EQ(stores.shared.groups().size(), placed ? 1u : 2u);
      EXPECT_EQ(stores.own.groups().size(), placed ? 1u : 0u);
    }
  }
}

}  // namespace
}  // namespace uccp::storage
