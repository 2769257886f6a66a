#include "services/tasks/cron.h"

#include <absl/time/time.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace uccp::tasks {
namespace {

int64_t at(const std::string& utc) {
  absl::Time time;
  std::string error;
  EXPECT_TRUE(absl::ParseTime("%Y-%m-%d %H:%M:%S", utc, &time, &error)) << utc << error;
  return absl::ToUnixMicros(time);
}

// The next times after `from`, in UTC.
std::vector<std::string> times(const std::string& cron, const std::string& zone, const std::string& from, int count) {
  const auto schedule = CronSchedule::parse(cron, zone);
  EXPECT_TRUE(schedule) << schedule.error().message();
  std::vector<std::string> out;
  std::optional<int64_t> time = at(from);
  for (int i = 0; i < count && schedule; ++i) {
    time = schedule->next(*time);
    if (!time) break;
    out.push_back(absl::FormatTime("%Y-%m-%d %H:%M", absl::FromUnixMicros(*time), absl::UTCTimeZone()));
  }
  return out;
}

std::string refusal(const std::string& cron, const std::string& zone = "") {
  const auto schedule = CronSchedule::parse(cron, zone);
  return schedule ? "" : std::string(schedule.error().reason()) + ": " + schedule.error().message();
}

using Times = std::vector<std::string>;

TEST(Cron, FieldsAreListsRangesStepsAndNames) {
  EXPECT_EQ(times("*/20 8-9 * * *", "", "2026-03-02 09:30:00", 3),
            (Times{"2026-03-02 09:40", "2026-03-03 08:00", "2026-03-03 08:20"}));
  EXPECT_EQ(times("0 12 1,15 JAN-mar *", "UTC", "2026-02-20 00:00:00", 3),
            (Times{"2026-03-01 12:00", "2026-03-15 12:00", "2027-01-01 12:00"}));
  EXPECT_EQ(times("5/25 0 * * *", "", "2026-03-02 00:00:00", 2), (Times{"2026-03-02 00:05", "2026-03-02 00:30"}));
  EXPECT_EQ(times("@monthly", "", "2026-12-02 00:00:00", 1), (Times{"2027-01-01 00:00"}));
}

TEST(Cron, ATimeIsNeverTheOneItIsAfter) {
  EXPECT_EQ(times("0 0 * * *", "", "2026-03-02 00:00:00", 1), (Times{"2026-03-03 00:00"}));
}

TEST(Cron, SundayIsZeroAndSevenAndOneOfTwoDaysIsEnough) {
  const Times sundays = {"2026-03-01 00:00", "2026-03-08 00:00"};
  EXPECT_EQ(times("0 0 * * 0", "", "2026-02-28 12:00:00", 2), sundays);
  EXPECT_EQ(times("0 0 * * 7", "", "2026-02-28 12:00:00", 2), sundays);
  EXPECT_EQ(times("0 0 * * SUN", "", "2026-02-28 12:00:00", 2), sundays);
  EXPECT_EQ(times("0 0 * * 5-7", "", "2026-02-28 12:00:00", 2), (Times{"2026-03-01 00:00", "2026-03-06 00:00"}));
  EXPECT_EQ(times("0 0 3 * SUN", "", "2026-02-28 12:00:00", 3),
            (Times{"2026-03-01 00:00", "2026-03-03 00:00", "2026-03-08 00:00"}));
}

// Berlin: at 01:00 UTC on 2026-03-29 the clocks go from 02:00 to 03:00.
TEST(Cron, ATimeThatDoesNotExistFiresWhenClocksArePutForward) {
  EXPECT_EQ(times("30 2 * * *", "Europe/Berlin", "2026-03-27 12:00:00", 3),
            (Times{"2026-03-28 01:30", "2026-03-29 01:00", "2026-03-30 00:30"}));
  // Several of them do so once.
  EXPECT_EQ(times("0,30 2 * * *", "Europe/Berlin", "2026-03-29 00:00:00", 2),
            (Times{"2026-03-29 01:00", "2026-03-30 00:00"}));
}

// Berlin: at 01:00 UTC on 2026-10-25 the clocks go from 03:00 back to 02:00.
TEST(Cron, ATimeThatComesTwiceFiresOnce) {
  EXPECT_EQ(times("30 2 * * *", "Europe/Berlin", "2026-10-24 12:00:00", 2),
            (Times{"2026-10-25 00:30", "2026-10-26 01:30"}));
}

TEST(Cron, EveryHourFollowsRealTimeOverBothChanges) {
  EXPECT_EQ(times("30 * * * *", "Europe/Berlin", "2026-10-24 23:00:00", 4),
            (Times{"2026-10-24 23:30", "2026-10-25 00:30", "2026-10-25 01:30", "2026-10-25 02:30"}));
  EXPECT_EQ(times("0 * * * *", "Europe/Berlin", "2026-03-28 23:30:00", 3),
            (Times{"2026-03-29 00:00", "2026-03-29 01:00", "2026-03-29 02:00"}));
}

TEST(Cron, LeapDaysAreFoundOverACenturyWithoutOne) {
  EXPECT_EQ(times("0 0 29 2 *", "", "2096-03-01 00:00:00", 1), (Times{"2104-02-29 00:00"}));
}

TEST(Cron, WhatCannotBeReadIsNamed) {
  EXPECT_NE(refusal("* * * *").find("has 4 fields"), std::string::npos) << refusal("* * * *");
  EXPECT_NE(refusal("61 * * * *").find("\"61\" as its minute"), std::string::npos) << refusal("61 * * * *");
  EXPECT_NE(refusal("* * * foo *").find("\"foo\" as its month"), std::string::npos) << refusal("* * * foo *");
  EXPECT_NE(refusal("9-5 * * * *").find("ends before it begins"), std::string::npos);
  EXPECT_NE(refusal("*/0 * * * *").find("step"), std::string::npos);
  EXPECT_NE(refusal("@never").find("@hourly"), std::string::npos);
  EXPECT_NE(refusal("* * * * mon-").find("day of the week"), std::string::npos);
  for (const char* zone : {"Mars/Olympus", "../../etc/passwd", "/etc/localtime", "file:/etc/localtime"}) {
    EXPECT_TRUE(refusal("@daily", zone).starts_with("TIME_ZONE_UNKNOWN")) << zone;
  }
}

TEST(Cron, WhatNeverFiresIsRefused) {
  v1::Schedule schedule;
  schedule.set_cron("0 0 30 2 *");
  auto checked = check_schedule(schedule, at("2026-01-01 00:00:00"));
  ASSERT_FALSE(checked);
  EXPECT_EQ(checked.error().reason(), "CRON_NEVER_FIRES");
  schedule.set_cron("0 0 * * *");
  EXPECT_TRUE(check_schedule(schedule, at("2026-01-01 00:00:00")));
  schedule.mutable_end_time()->set_seconds(at("2026-01-01 12:00:00") / 1'000'000);
  EXPECT_FALSE(check_schedule(schedule, at("2026-01-01 00:00:00")));
}

TEST(Cron, BoundsHold) {
  v1::Schedule schedule;
  schedule.set_cron("0 * * * *");
  schedule.mutable_start_time()->set_seconds(at("2026-01-02 00:00:00") / 1'000'000);
  schedule.mutable_end_time()->set_seconds(at("2026-01-02 01:00:00") / 1'000'000);
  const auto cron = check_schedule(schedule, at("2026-01-01 00:00:00"));
  ASSERT_TRUE(cron);
  EXPECT_EQ(next_fire(*cron, schedule, at("2026-01-01 00:00:00")), at("2026-01-02 00:00:00"));
  EXPECT_EQ(next_fire(*cron, schedule, at("2026-01-02 00:00:00")), at("2026-01-02 01:00:00"));
  EXPECT_EQ(next_fire(*cron, schedule, at("2026-01-02 01:00:00")), std::nullopt);
}

}  // namespace
}  // namespace uccp::tasks
