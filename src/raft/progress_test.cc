#include "raft/progress.h"

#include <gtest/gtest.h>

namespace uccp::raft {
namespace {

constexpr uint64_t kWindow = 100;

TEST(ProgressTest, AProbeWaitsForItsAnswerOrAHeartbeat) {
  Progress progress(LogIndex(10));
  EXPECT_FALSE(progress.paused(kWindow));
  progress.sent(LogIndex(12), 5);
  EXPECT_TRUE(progress.paused(kWindow));
  EXPECT_EQ(progress.next(), LogIndex(10));
  progress.allow_probe();
  EXPECT_FALSE(progress.paused(kWindow));
}

TEST(ProgressTest, ARefusedProbeGoesBackToTheHint) {
  Progress progress(LogIndex(10));
  progress.sent(LogIndex(9), 0);
  EXPECT_TRUE(progress.refuse(LogIndex(9), LogIndex(4)));
  EXPECT_EQ(progress.next(), LogIndex(5));
  EXPECT_FALSE(progress.paused(kWindow));
  EXPECT_FALSE(progress.refuse(LogIndex(9), LogIndex(1)));  // the answer of an older probe
  EXPECT_EQ(progress.next(), LogIndex(5));
}

TEST(ProgressTest, AHintNeverGoesBelowWhatMatchesNorStandsStill) {
  Progress progress(LogIndex(10));
  progress.matched(LogIndex(6));
  EXPECT_TRUE(progress.refuse(LogIndex(9), LogIndex(2)));
  EXPECT_EQ(progress.next(), LogIndex(7));
  Progress other(LogIndex(10));
  EXPECT_TRUE(other.refuse(LogIndex(9), LogIndex(9)));
  EXPECT_EQ(other.next(), LogIndex(9));
}

TEST(ProgressTest, TheWindowCountsBytesInFlight) {
  Progress progress(LogIndex(1));
  progress.become_replicate();
  progress.sent(LogIndex(3), 60);
  EXPECT_FALSE(progress.paused(kWindow));
  progress.sent(LogIndex(5), 60);
  EXPECT_TRUE(progress.paused(kWindow));
  EXPECT_EQ(progress.next(), LogIndex(6));
  EXPECT_TRUE(progress.matched(LogIndex(3)));
  EXPECT_FALSE(progress.paused(kWindow));
  EXPECT_FALSE(progress.matched(LogIndex(3)));
}

TEST(ProgressTest, ARefusalWhileReplicatingGoesBackToWhatMatches) {
  Progress progress(LogIndex(1));
  progress.become_replicate();
  progress.matched(LogIndex(2));
  progress.sent(LogIndex(9), 60);
  EXPECT_FALSE(progress.refuse(LogIndex(2), LogIndex(0)));
  EXPECT_TRUE(progress.refuse(LogIndex(5), LogIndex(0)));
  EXPECT_EQ(progress.state(), Progress::State::kProbe);
  EXPECT_EQ(progress.next(), LogIndex(3));
}

TEST(ProgressTest, NothingIsSentWhileASnapshotIsUnderWay) {
  Progress progress(LogIndex(5));
  progress.become_snapshot();
  EXPECT_TRUE(progress.paused(kWindow));
  EXPECT_FALSE(progress.refuse(LogIndex(4), LogIndex(0)));
  progress.snapshot_ended(LogIndex(20));
  EXPECT_EQ(progress.next(), LogIndex(21));
  EXPECT_TRUE(progress.paused(kWindow));
  progress.allow_probe();
  EXPECT_FALSE(progress.paused(kWindow));
}

}  // namespace
}  // namespace uccp::raft
