#include "services/tasks/ref_table.h"

#include <gtest/gtest.h>

#include <map>

#include "base/random.h"

namespace uccp::tasks {
namespace {

struct Entry {
  TaskRef ref;
  int value = 0;

  bool is_of(const TaskRef& other) const { return ref == other; }
};

TaskRef ref(int number) { return {"t", "n" + std::to_string(number % 3), std::to_string(number / 3)}; }

// Beside a map, with as many additions as removals, so that gaps open and close everywhere.
TEST(RefTable, HoldsWhatAMapHolds) {
  RefTable<Entry> table;
  std::map<int, int> model;
  SeededRandom random(5);
  for (int step = 0; step < 50'000; ++step) {
    const int number = static_cast<int>(random.below(700));
    if (const auto known = model.find(number); known == model.end()) {
      ASSERT_EQ(table.find(ref(number)), nullptr);
      table.add(ref(number), {ref(number), step});
      model[number] = step;
    } else {
      ASSERT_EQ(table.find(ref(number))->value, known->second);
      ASSERT_TRUE(table.erase(ref(number)));
      model.erase(known);
    }
    ASSERT_EQ(table.size(), model.size());
  }
  for (int number = 0; number < 700; ++number) EXPECT_EQ(table.contains(ref(number)), model.contains(number)) << number;
  EXPECT_FALSE(table.erase(ref(10'000)));
}

TEST(RefTable, RecordsStayWhereTheyAre) {
  RefTable<Entry> table;
  const Entry* first = &table.add(ref(0), {ref(0), 1});
  for (int number = 1; number < 5'000; ++number) table.add(ref(number), {ref(number), number});
  EXPECT_EQ(table.find(ref(0)), first);
  EXPECT_EQ(first->value, 1);
}

}  // namespace
}  // namespace uccp::tasks
