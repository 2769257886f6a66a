#include "sim/scheduling/trace_replay.h"

#include <gtest/gtest.h>

#include <numeric>

namespace uccp::sim {
namespace {

constexpr Policy kAll[] = {Policy::kScheduler, Policy::kFcfs, Policy::kEasy, Policy::kConservative};

TEST(WorkloadTrace, ReadsWhatItWrites) {
  const auto jobs = make_trace(3, {.jobs = 200});
  const auto read = parse_swf(to_swf(jobs, "a model"));
  ASSERT_TRUE(read.has_value()) << read.error().message();
  EXPECT_EQ(*read, jobs);
}

TEST(WorkloadTrace, ReadsTheFieldsOfTheFormat) {
  const auto jobs = parse_swf(
      "; MaxProcs: 128\n"
      "1 7 3 100 8 -1 -1 16 600 -1 1 5 1 -1 1 -1 -1 -1\r\n"
      "2 5 0 200 -1 -1 -1 4 -1 -1 1 6 1 -1 1 -1 -1 -1 ; asked for no time\n"
      "3 9 0 -1 4 -1 -1 4 60 -1 5 6 1 -1 1 -1 -1 -1\n");
  ASSERT_TRUE(jobs.has_value()) << jobs.error().message();
  ASSERT_EQ(jobs->size(), 2u) << "what was cancelled before it ran is left out";
  EXPECT_EQ((*jobs)[0], (TraceJob{.submit_s = 5, .run_s = 200, .limit_s = 200, .processors = 4, .user = 6}));
  EXPECT_EQ((*jobs)[1], (TraceJob{.submit_s = 7, .run_s = 100, .limit_s = 600, .processors = 8, .user = 5}));
}

TEST(WorkloadTrace, SaysWhatIsWrongAndWhere) {
  const auto message = [](std::string_view text) { return parse_swf(text).error().message(); };
  EXPECT_EQ(message(";\n1 2 3\n"),
            "line 2 of the trace: there are only 3 numbers; a line of the Standard Workload Format is 18 numbers");
  EXPECT_EQ(
      message("1 7 3 100 8 -1 -1 16 600 -1 1 5 1 -1 1 -1 -1 x\n"),
      "line 1 of the trace: \"x\" is no number up to 1e+15; a line of the Standard Workload Format is 18 numbers");
  EXPECT_EQ(
      message("1 7 3 100 8 -1 -1 16 600 -1 1 5 1 -1 1 -1 -1 -1 0\n"),
      "line 1 of the trace: there are more than 18 numbers; a line of the Standard Workload Format is 18 numbers");
}

TEST(WorkloadTrace, TheModelHasTheLoadThatIsAskedFor) {
  const TraceModel model{.jobs = 5'000, .processors = 128, .load = 0.8};
  const auto jobs = make_trace(1, model);
  EXPECT_EQ(jobs, make_trace(1, model));
  EXPECT_NE(jobs, make_trace(2, model));
  double work = 0;
  size_t serial = 0;
  for (const TraceJob& job : jobs) {
    work += static_cast<double>(job.run_s * job.processors);
    serial += job.processors == 1 ? 1 : 0;
    EXPECT_LE(job.run_s, job.limit_s);
    EXPECT_LE(job.processors, 128);
  }
  const auto span = static_cast<double>(jobs.back().submit_s);
  EXPECT_NEAR(work / (span * 128), 0.8, 0.1);
  EXPECT_NEAR(static_cast<double>(serial) / 5'000, 0.244, 0.05);
}

// A machine of 4 processors; the second job needs all of them.
std::vector<TraceJob> textbook() {
  return {{.submit_s = 0, .run_s = 50, .limit_s = 100, .processors = 3, .user = 1},
          {.submit_s = 1, .run_s = 10, .limit_s = 10, .processors = 4, .user = 2},
          {.submit_s = 2, .run_s = 60, .limit_s = 60, .processors = 1, .user = 3},
          {.submit_s = 3, .run_s = 20, .limit_s = 200, .processors = 1, .user = 4}};
}

TEST(ReferencePolicies, StartJobsWhenTheLiteratureSays) {
  const TraceMachine machine{.nodes = 1, .processors = 4};
  const auto starts = [&](Policy policy) { return replay(textbook(), machine, policy).start_s; };
  EXPECT_EQ(starts(Policy::kFcfs), (std::vector<int64_t>{0, 50, 60, 60}));
  // The third ends before the second could begin at the latest, the fourth might not. The first ends early; then the
  // third still runs.
  EXPECT_EQ(starts(Policy::kEasy), (std::vector<int64_t>{0, 62, 2, 72}));
  EXPECT_EQ(starts(Policy::kConservative), (std::vector<int64_t>{0, 62, 2, 72}));
}

// What tells the two kinds of backfilling apart: EASY has no promise for the third.
TEST(ReferencePolicies, OnlyConservativeBackfillingKeepsPromisesToAll) {
  const TraceMachine machine{.nodes = 1, .processors = 4};
  const std::vector<TraceJob> jobs = {{.submit_s = 0, .run_s = 10, .limit_s = 10, .processors = 2},
                                      {.submit_s = 1, .run_s = 10, .limit_s = 10, .processors = 3},
                                      {.submit_s = 2, .run_s = 10, .limit_s = 10, .processors = 4},
                                      {.submit_s = 3, .run_s = 40, .limit_s = 40, .processors = 1}};
  EXPECT_EQ(replay(jobs, machine, Policy::kEasy).start_s, (std::vector<int64_t>{0, 10, 43, 3}));
  EXPECT_EQ(replay(jobs, machine, Policy::kConservative).start_s, (std::vector<int64_t>{0, 10, 20, 30}));
}

TEST(TraceReplay, EveryJobRunsOnceUnderEachPolicy) {
  const TraceMachine machine{.nodes = 8, .processors = 16};
  const auto jobs = make_trace(5, {.jobs = 600, .processors = 128, .load = 0.85});
  for (const Policy policy : kAll) {
    const ReplayResult result = replay(jobs, machine, policy);
    EXPECT_EQ(result.violation, "") << name_of(policy);
    EXPECT_EQ(result.ended, jobs.size()) << name_of(policy);
    EXPECT_GT(result.utilisation, 0.4) << name_of(policy);
    EXPECT_GT(result.fairness, 0) << name_of(policy);
    EXPECT_EQ(result.start_s, replay(jobs, machine, policy).start_s) << name_of(policy);
  }
}

// With room kept for one gang at a time, on whole workers, it used two thirds of what EASY does.
TEST(TraceReplay, TheSchedulerUsesTheMachineAsEasyDoes) {
  const TraceMachine machine{.nodes = 8, .processors = 16};
  const auto jobs = make_trace(5, {.jobs = 600, .processors = 128, .load = 0.85});
  const ReplayResult ours = replay(jobs, machine, Policy::kScheduler);
  const ReplayResult easy = replay(jobs, machine, Policy::kEasy);
  EXPECT_GT(ours.utilisation, 0.9 * easy.utilisation);
  EXPECT_LT(ours.slowdown_mean, 2 * easy.slowdown_mean);
}

TEST(TraceReplay, AJobThatIsLargerThanTheMachineIsRefusedAndHoldsUpNobody) {
  const std::vector<TraceJob> jobs = {{.submit_s = 0, .run_s = 5, .limit_s = 5, .processors = 64},
                                      {.submit_s = 1, .run_s = 5, .limit_s = 5, .processors = 4}};
  for (const Policy policy : kAll) {
    const ReplayResult result = replay(jobs, {.nodes = 2, .processors = 4}, policy);
    EXPECT_EQ(result.violation, "") << name_of(policy);
    EXPECT_EQ(result.start_s, (std::vector<int64_t>{-1, 1})) << name_of(policy);
    EXPECT_EQ(result.refused, 1u);
  }
}

}  // namespace
}  // namespace uccp::sim
