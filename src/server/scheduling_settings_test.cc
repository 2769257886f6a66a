// Settings of the scheduler: what is taken, what is refused and how it is said.
#include "server/scheduling_settings.h"

#include <gtest/gtest.h>

#include "server/backfill_choice.h"

namespace uccp::server {
namespace {

using tasks::Backfill;

Result<tasks::SchedulerPolicy> settings(const std::string& yaml) {
  const auto config = Config::load(yaml, "c.yaml", {}, {});
  if (!config) return std::unexpected(config.error());
  return scheduling_settings(*config);
}

TEST(SchedulingSettings, Defaults) {
  const auto policy = settings("");
  ASSERT_TRUE(policy.has_value());
  EXPECT_EQ(policy->backfill, Backfill::kEasy);
  EXPECT_TRUE(policy->backfill_rules.empty());
  EXPECT_EQ(policy->headroom_percent, 0);
  EXPECT_EQ(policy->gang_reservations, 4u);
}

TEST(SchedulingSettings, NumbersOutOfRangeAreRefusedByName) {
  EXPECT_EQ(settings("gang_reservations: 1")->gang_reservations, 1u);
  EXPECT_EQ(settings("gang_reservations: 1024")->gang_reservations, 1024u);
  EXPECT_EQ(settings("interactive_headroom: 90")->headroom_percent, 90);
  for (const char* wrong : {"gang_reservations: 0", "gang_reservations: 1025", "interactive_headroom: 91"}) {
    const auto refused = settings(wrong);
    ASSERT_FALSE(refused.has_value()) << wrong;
    EXPECT_EQ(refused.error().reason(), "CONFIG_INVALID");
    const std::string name = std::string(wrong).substr(0, std::string(wrong).find(':'));
    EXPECT_NE(refused.error().message().find(name), std::string::npos) << refused.error().message();
    EXPECT_NE(refused.error().message().find("out of range"), std::string::npos) << refused.error().message();
  }
  EXPECT_FALSE(settings("gang_reservations: many").has_value());
}

TEST(SchedulingSettings, BackfillHasExceptionsForQueues) {
  const auto policy = settings("backfill: 'conservative, lab/quick : easy,*/nightly:conservative, lab/*:easy'");
  ASSERT_TRUE(policy.has_value()) << policy.error().message();
  EXPECT_EQ(policy->backfill, Backfill::kConservative);
  ASSERT_EQ(policy->backfill_rules.size(), 3u);
  EXPECT_EQ(policy->backfill_rules[0].name_space, "lab");
  EXPECT_EQ(policy->backfill_rules[0].queue, "quick");
  EXPECT_EQ(policy->backfill_rules[0].backfill, Backfill::kEasy);
  EXPECT_EQ(policy->backfill_rules[1].name_space, "*");
  EXPECT_EQ(policy->backfill_rules[2].queue, "*");
}

TEST(SchedulingSettings, BackfillThatIsWrongIsRefusedWithItsPart) {
  for (const char* wrong : {"", "fast", "lab/quick:easy", "easy, lab:easy", "easy, lab/quick", "easy, lab/:easy",
                            "easy, lab/q:slow", "easy, la b/q:easy", "easy, a:b/c:easy"}) {
    const auto refused = parse_backfill(wrong);
    ASSERT_FALSE(refused.has_value()) << wrong;
    EXPECT_EQ(refused.error().reason(), "CONFIG_INVALID");
    EXPECT_NE(refused.error().message().find("research/nightly:conservative"), std::string::npos);
  }
  EXPECT_EQ(parse_backfill("easy, lab/q:slow").error().message().find("backfill: 'lab/q:slow'"), 0u);
}

}  // namespace
}  // namespace uccp::server
