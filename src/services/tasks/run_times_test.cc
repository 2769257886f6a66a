#include "services/tasks/run_times.h"

#include <gtest/gtest.h>

namespace uccp::tasks {
namespace {

TEST(RunTimes, SayNothingAfterFewRunsAndThenTheLongestOfLate) {
  RunTimes times;
  const RunTimes::Name name{"t", "n", "nightly"};
  for (size_t i = 0; i + 1 < RunTimes::kRunsNeeded; ++i) times.note(name, 1'000);
  EXPECT_EQ(times.estimate_ms(name), std::nullopt);
  times.note(name, 5'000);
  EXPECT_EQ(times.estimate_ms(name), 6'144) << "rounded up to half an octave";
  for (size_t i = 0; i < RunTimes::kRunsKept; ++i) times.note(name, 1'000);
  EXPECT_EQ(times.estimate_ms(name), 1'024) << "the long one is forgotten";
  EXPECT_EQ(times.estimate_ms({"t", "other", "nightly"}), std::nullopt);
}

TEST(RunTimes, TheNameThatEndedLongestAgoIsForgottenFirst) {
  RunTimes times;
  const auto name = [](size_t i) { return RunTimes::Name{"t", "n", std::to_string(i)}; };
  for (size_t run = 0; run < RunTimes::kRunsNeeded; ++run) {
    times.note(name(0), 100);
    times.note(name(1), 100);
  }
  times.note(name(0), 100);
  for (size_t i = 2; i < RunTimes::kNamesMax + 1; ++i) times.note(name(i), 100);
  EXPECT_TRUE(times.estimate_ms(name(0)).has_value());
  EXPECT_FALSE(times.estimate_ms(name(1)).has_value());
}

}  // namespace
}  // namespace uccp::tasks
