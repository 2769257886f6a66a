#include "services/tasks/worker_amounts.h"

#include <gtest/gtest.h>

#include <map>

#include "base/random.h"

namespace uccp::tasks {
namespace {

// Beside plain maps, while workers change what they have, dimensions are added and slots are used again.
TEST(WorkerAmounts, HoldsWhatMapsHold) {
  constexpr Dimension kDimensionsMax = 20;  // so that rows are widened twice
  constexpr WorkerSlot kSlots = 50;
  WorkerAmounts amounts(6);
  for (WorkerSlot slot = 0; slot < kSlots; ++slot) amounts.add_slot();
  std::map<std::pair<WorkerSlot, Dimension>, int64_t> capacity, free;
  std::map<std::pair<WorkerSlot, Dimension>, uint32_t> position;
  SeededRandom random(7);
  for (int step = 0; step < 20'000; ++step) {
    const auto slot = static_cast<WorkerSlot>(random.below(kSlots));
    const auto dimension = static_cast<Dimension>(random.below(amounts.dimensions()));
    const auto chance = random.below(100);
    if (chance < 2 && amounts.dimensions() < kDimensionsMax) {
      amounts.add_dimension();
    } else if (chance < 5) {
      amounts.clear(slot);
      for (Dimension d = 0; d < amounts.dimensions(); ++d)
        capacity[{slot, d}] = free[{slot, d}] = position[{slot, d}] = 0;
    } else if (chance < 30) {
      std::vector<int64_t> had(amounts.dimensions());
      // Of few kinds, so that many workers share one and others come and go.
      for (Dimension d = 0; d < had.size(); ++d) {
        had[d] = static_cast<int64_t>(random.below(2) * 10);
        free[{slot, d}] += had[d] - capacity[{slot, d}];
        capacity[{slot, d}] = had[d];
      }
      amounts.set_capacity(slot, had);
    } else {
      const auto more = static_cast<int64_t>(random.below(9)) - 4;
      ASSERT_EQ(amounts.add_free(slot, dimension, more), (free[{slot, dimension}] += more));
      amounts.spot(slot, dimension).position = position[{slot, dimension}] = static_cast<uint32_t>(step);
    }
    for (Dimension d = 0; d < amounts.dimensions(); ++d) {
      ASSERT_EQ(amounts.free(slot, d), (free[{slot, d}])) << step;
      ASSERT_EQ(amounts.capacity(slot, d), (capacity[{slot, d}])) << step;
      ASSERT_EQ(amounts.spot(slot, d).position, (position[{slot, d}])) << step;
    }
  }
  ASSERT_EQ(amounts.dimensions(), kDimensionsMax);
  for (const auto& [key, amount] : capacity) EXPECT_EQ(amounts.capacity(key.first, key.second), amount);
  for (const auto& [key, amount] : free) EXPECT_EQ(amounts.free(key.first, key.second), amount);
}

// What no worker has any more takes no room.
TEST(WorkerAmounts, RowsOfCapacitiesAreUsedAgain) {
  WorkerAmounts amounts(1);
  amounts.add_slot();
  amounts.add_slot();
  amounts.set_capacity(1, {7});
  for (int64_t had = 1; had < 1'000; ++had) amounts.set_capacity(0, {had * 10});
  EXPECT_LE(amounts.kinds(), 2u);
  EXPECT_EQ(amounts.capacity(0, 0), 9'990);
  EXPECT_EQ(amounts.capacity(1, 0), 7);
}

}  // namespace
}  // namespace uccp::tasks
