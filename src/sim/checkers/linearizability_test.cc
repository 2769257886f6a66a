#include "sim/checkers/linearizability.h"

#include <gtest/gtest.h>

namespace uccp::sim {
namespace {

using Op = RegisterOperation;
using Kind = RegisterOperation::Kind;

Op put(uint64_t value, int64_t called, int64_t returned) { return {Kind::kPut, 0, value, false, called, returned}; }
Op get(uint64_t value, int64_t called, int64_t returned) { return {Kind::kGet, 0, value, false, called, returned}; }
Op cas(uint64_t expected, uint64_t value, bool done, int64_t called, int64_t returned) {
  return {Kind::kCompareAndSet, expected, value, done, called, returned};
}

TEST(Linearizability, TakesASequentialHistory) {
  EXPECT_EQ(check_linearizable({get(0, 0, 1), put(1, 2, 3), get(1, 4, 5), cas(1, 2, true, 6, 7), get(2, 8, 9)}),
            Linearizability::kYes);
}

TEST(Linearizability, RefusesAStaleRead) {
  EXPECT_EQ(check_linearizable({put(1, 0, 1), put(2, 2, 3), get(1, 4, 5)}), Linearizability::kNo);
}

TEST(Linearizability, RefusesAReadThatGoesBack) {
  EXPECT_EQ(check_linearizable({put(1, 0, 10), get(1, 1, 2), get(0, 3, 4)}), Linearizability::kNo);
}

TEST(Linearizability, OrdersConcurrentOperationsAsTheirAnswersNeed) {
  EXPECT_EQ(check_linearizable({put(1, 0, 10), put(2, 0, 10), get(2, 11, 12), get(2, 13, 14)}), Linearizability::kYes);
  EXPECT_EQ(check_linearizable({put(1, 0, 10), put(2, 0, 10), get(2, 11, 12), get(1, 13, 14)}), Linearizability::kNo);
}

TEST(Linearizability, AnUnknownOutcomeMayHaveHappenedAtAnyTimeOrNever) {
  const int64_t never = Op::kNeverReturned;
  EXPECT_EQ(check_linearizable({put(1, 0, never), get(0, 5, 6), get(1, 7, 8)}), Linearizability::kYes);
  EXPECT_EQ(check_linearizable({put(1, 0, never), get(0, 5, 6), get(0, 7, 8)}), Linearizability::kYes);
  EXPECT_EQ(check_linearizable({put(1, 0, never), get(1, 5, 6), get(0, 7, 8)}), Linearizability::kNo);
  EXPECT_EQ(check_linearizable({put(1, 0, 1), cas(1, 2, false, 2, never), get(2, 5, 6)}), Linearizability::kYes);
}

TEST(Linearizability, RefusesACompareAndSetThatWonTwice) {
  EXPECT_EQ(check_linearizable({cas(0, 1, true, 0, 10), cas(0, 2, true, 0, 10)}), Linearizability::kNo);
  EXPECT_EQ(check_linearizable({cas(0, 1, true, 0, 10), cas(0, 2, false, 0, 10)}), Linearizability::kYes);
}

}  // namespace
}  // namespace uccp::sim
