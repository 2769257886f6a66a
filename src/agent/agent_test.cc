// The core of the agent: conversation with the cluster, lease, life of attempts.
#include "agent/agent_test_support.h"

namespace uccp::agent {
namespace {

TEST_F(AgentTest, AnAttemptGoesFromLaunchToAcknowledgedOutcome) {
  connect();
  const AttemptKey key = start("t");
  ASSERT_EQ(executor_->launched.size(), 1u);
  EXPECT_EQ(executor_->launched[0].command, std::vector<std::string>{"true"});
  EXPECT_EQ(link_->take(Body::kStarted).size(), 1u);
  agent_->output(key, LogStreamKind::kStdout, loop_.wall(), "hi\n");
  EXPECT_EQ(executor_->credited, 3u);
  finish(key, {.exit_code = 3});
  const auto outcomes = link_->take(Body::kOutcome);
  ASSERT_EQ(outcomes.size(), 1u);
  const wire::AttemptOutcome& outcome = outcomes[0].outcome();
  EXPECT_EQ(outcome.kind(), api::ATTEMPT_OUTCOME_KIND_EXITED);
  EXPECT_EQ(outcome.exit_code(), 3);
  ASSERT_EQ(outcome.logs_size(), 1);
  EXPECT_EQ(outcome.logs(0).stdout_bytes(), 3u);
  tasks::LogReader reader(link_->blobs.at(outcome.logs(0).blob().sha256()), 0);
  EXPECT_EQ((**reader.next()).bytes, "hi\n");
  // Connected: nothing was written down.
  EXPECT_TRUE(files_.list(options_.data_directory + "/outcomes")->empty());
  EXPECT_TRUE(executor_->released.empty());
  acknowledge("t");
  EXPECT_EQ(executor_->released, std::vector<AttemptKey>{key});
  EXPECT_EQ(agent_->known(), 0u);
}

TEST_F(AgentTest, ARepeatedLaunchRunsOnce) {
  connect();
  const AttemptKey key = start("t");
  launch("t");
  EXPECT_EQ(executor_->launched.size(), 1u);
  EXPECT_EQ(link_->take(Body::kStarted).size(), 2u);
  finish(key);
  launch("t");
  EXPECT_EQ(link_->take(Body::kOutcome).size(), 2u);
  acknowledge("t");
  launch("t");
  EXPECT_EQ(executor_->launched.size(), 1u);
}

TEST_F(AgentTest, AttemptsOfAnotherEpochAreDeniedUntilAcknowledged) {
  connect(5);
  launch("old", 4);
  launch("new", 6);
  auto denied = link_->take(Body::kDenied);
  ASSERT_EQ(denied.size(), 2u);
  EXPECT_EQ(denied[0].denied().reason(), wire::DENY_REASON_STALE_EPOCH);
  EXPECT_TRUE(executor_->launched.empty());
  link_->down();
  connect(5);
  EXPECT_EQ(link_->take(Body::kDenied).size(), 2u);
  acknowledge("old");
  link_->down();
  connect(5);
  EXPECT_EQ(link_->take(Body::kDenied).size(), 1u);
}

TEST_F(AgentTest, ANewEpochKillsWhatRanInTheOldOne) {
  connect(5);
  const AttemptKey key = start("t");
  link_->down();
  connect(6);
  ASSERT_TRUE(executor_->cancelled.contains(key));
  EXPECT_EQ(executor_->cancelled[key].grace_ms, 0);
  EXPECT_EQ(executor_->cancelled[key].kind, EndKind::kLost);
}

TEST_F(AgentTest, TasksGoOnWhileTheServerIsDownAndDieWithTheLease) {
  connect(5, 10'000);
  const AttemptKey key = start("t");
  loop_.advance(3000);
  confirm();  // the last beat was sent at 3000, so the lease ends at 13000
  link_->down();
  loop_.advance(9'900);
  EXPECT_TRUE(executor_->cancelled.empty());
  loop_.advance(200);
  ASSERT_TRUE(executor_->cancelled.contains(key));
  EXPECT_EQ(executor_->cancelled[key].kind, EndKind::kLost);
  EXPECT_EQ(executor_->cancelled[key].grace_ms, 0);
}

TEST_F(AgentTest, ConfirmedHeartbeatsKeepTheLease) {
  connect(5, 10'000);
  start("t");
  for (int i = 0; i < 100; ++i) {
    loop_.advance(1000);
    confirm();
  }
  EXPECT_TRUE(executor_->cancelled.empty());
  EXPECT_TRUE(link_->reconnects.empty());
}

TEST_F(AgentTest, AConnectionWithoutConfirmationsIsGivenUpBeforeTheLeaseEnds) {
  connect(5, 10'000);
  start("t");
  loop_.advance(7'000);
  EXPECT_EQ(link_->reconnects.size(), 1u);
  EXPECT_TRUE(executor_->cancelled.empty());
}

TEST_F(AgentTest, AfterAPauseBeyondTheLeaseAttemptsAreKilledAtOnce) {
  connect(5, 10'000);
  const AttemptKey key = start("t");
  loop_.now_us += 3600'000'000;  // SIGSTOP, or the machine slept
  loop_.advance(0);
  EXPECT_TRUE(executor_->cancelled.contains(key));
}

TEST_F(AgentTest, HelloSaysWhatRunsAndWhatIsNotAcknowledged) {
  connect();
  const AttemptKey running = start("running");
  const AttemptKey done = start("done");
  finish(done);
  link_->down();
  const wire::Hello hello = connect();
  ASSERT_EQ(hello.running_size(), 1);
  EXPECT_EQ(hello.running(0).attempt().task_id(), "running");
  ASSERT_EQ(hello.pending_outcomes_size(), 1);
  EXPECT_EQ(hello.pending_outcomes(0).attempt().task_id(), "done");
  EXPECT_EQ(hello.worker_id(), "worker_1");
  EXPECT_EQ(hello.last_epoch(), 5u);
  // It was in Hello: once is enough on this connection.
  EXPECT_EQ(link_->take(Body::kOutcome).size(), 1u);
}

TEST_F(AgentTest, AnOutcomeBetweenHelloAndWelcomeIsNotLost) {
  connect();
  const AttemptKey key = start("t");
  link_->down();
  link_->connect();
  finish(key);
  EXPECT_TRUE(link_->take(Body::kOutcome).empty());
  wire::ServerMessage message;
  message.mutable_welcome()->set_worker_id("worker_1");
  message.mutable_welcome()->set_cluster_id("cluster");
  message.mutable_welcome()->set_epoch(5);
  link_->deliver(message);
  EXPECT_EQ(link_->take(Body::kOutcome).size(), 1u);
}

TEST_F(AgentTest, AnOutcomeWhileTheLinkIsDownSurvivesTheAgent) {
  connect();
  const AttemptKey key = start("t");
  link_->down();
  agent_->output(key, LogStreamKind::kStderr, loop_.wall(), "trouble");
  const std::string artifact = options_.data_directory + "/artifact";
  std::ofstream(artifact) << "content";
  finish(key, {.exit_code = 1,
               .artifacts = {
                   {.path = "out/x", .size = 7, .sha256 = to_hex(sha256("content")), .mode = 0644, .file = artifact}}});
  EXPECT_EQ(executor_->released, std::vector<AttemptKey>{key});
  boot_agent();
  const wire::Hello hello = connect();
  // Its content is not stored by the cluster yet, so it still counts as running, not as lost.
  EXPECT_EQ(hello.running_size(), 1);
  const auto outcomes = link_->take(Body::kOutcome);
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(outcomes[0].outcome().exit_code(), 1);
  EXPECT_EQ(link_->blobs.size(), 2u);
  acknowledge("t");
  EXPECT_TRUE(files_.list(options_.data_directory + "/outcomes")->empty());
}

TEST_F(AgentTest, AttemptsOfADeadAgentAreReportedLost) {
  connect();
  start("t");
  boot_agent({id("t").SerializeAsString()});
  const wire::Hello hello = connect();
  ASSERT_EQ(hello.pending_outcomes_size(), 1);
  EXPECT_EQ(hello.pending_outcomes(0).kind(), api::ATTEMPT_OUTCOME_KIND_LOST);
  EXPECT_EQ(hello.running_size(), 0);
  // Said again by the next agent if this one dies before the answer.
  boot_agent();
  EXPECT_EQ(connect().pending_outcomes_size(), 1);
}

TEST_F(AgentTest, UploadsAreTriedAgainWhenTheClusterIsUnavailableAndGivenUpWhenItRefuses) {
  connect();
  const AttemptKey key = start("t");
  agent_->output(key, LogStreamKind::kStdout, loop_.wall(), "x");
  link_->put_answer = Status(Code::kUnavailable, "TEST", "no leader");
  finish(key);
  EXPECT_TRUE(link_->take(Body::kOutcome).empty());
  // So it is when the disk there is full: nothing is given up.
  link_->put_answer = Status(Code::kExhausted, "NO_SPACE", "the disk is nearly full");
  loop_.advance(3000);
  EXPECT_TRUE(link_->take(Body::kOutcome).empty());
  link_->put_answer = Status(Code::kInvalid, "BLOB_TOO_LARGE", "a blob has at most 8 bytes");
  loop_.advance(1000);
  const auto outcomes = link_->take(Body::kOutcome);
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(outcomes[0].outcome().logs_size(), 0);
  EXPECT_TRUE(outcomes[0].outcome().log_truncated());
  EXPECT_NE(outcomes[0].outcome().message().find("at most 8 bytes"), std::string::npos);
}

TEST_F(AgentTest, InputsAreFetchedOnceAndPlaced) {
  connect();
  const std::string content = "data";
  const std::string hash = to_hex(sha256(content));
  link_->blobs[hash] = content;
  for (const char* task : {"a", "b"}) {
    wire::ServerMessage message = launch_message(id(task));
    wire::ResolvedInput& input = *message.mutable_launch()->add_inputs();
    input.set_path("in.txt");
    input.mutable_blob()->set_sha256(hash);
    link_->deliver(message);
  }
  EXPECT_EQ(link_->gets, 1);
  ASSERT_EQ(executor_->launched.size(), 2u);
  std::ifstream file(executor_->launched[1].inputs[0].source_path);
  std::string read;
  file >> read;
  EXPECT_EQ(read, content);
}

TEST_F(AgentTest, AMissingInputIsALaunchFailureThatNamesIt) {
  connect();
  wire::ServerMessage message = launch_message(id("t"));
  message.mutable_launch()->add_inputs()->mutable_blob()->set_sha256(std::string(64, 'a'));
  link_->deliver(message);
  const auto outcomes = link_->take(Body::kOutcome);
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(outcomes[0].outcome().kind(), api::ATTEMPT_OUTCOME_KIND_LAUNCH_FAILED);
  EXPECT_NE(outcomes[0].outcome().message().find(std::string(64, 'a')), std::string::npos);
}

TEST_F(AgentTest, AFollowerGetsEachByteOnceAndTheEnd) {
  connect();
  const AttemptKey key = start("t");
  agent_->output(key, LogStreamKind::kStdout, loop_.wall(), "0123456789");
  wire::ServerMessage message;
  *message.mutable_subscribe_logs()->mutable_attempt() = id("t");
  message.mutable_subscribe_logs()->set_subscription(7);
  message.mutable_subscribe_logs()->set_stdout_offset(4);
  message.mutable_subscribe_logs()->set_follow(true);
  link_->deliver(message);
  auto chunks = link_->take(Body::kLog);
  ASSERT_EQ(chunks.size(), 1u);
  EXPECT_EQ(chunks[0].log().data(), "456789");
  EXPECT_EQ(chunks[0].log().offset(), 4u);
  link_->queued = kLinkQueueBytes;
  agent_->output(key, LogStreamKind::kStderr, loop_.wall(), "err");
  EXPECT_TRUE(link_->take(Body::kLog).empty());
  link_->queued = 0;
  agent_->writable();
  chunks = link_->take(Body::kLog);
  ASSERT_EQ(chunks.size(), 1u);
  EXPECT_EQ(chunks[0].log().stream(), wire::LOG_STREAM_STDERR);
  EXPECT_EQ(chunks[0].log().order(), 1u);
  finish(key);
  const auto replies = link_->take(Body::kLogReply);
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_TRUE(replies[0].log_reply().complete());
  EXPECT_EQ(replies[0].log_reply().stdout_offset(), 10u);
  message.mutable_subscribe_logs()->mutable_attempt()->set_task_id("nobody");
  link_->deliver(message);
  EXPECT_TRUE(link_->take(Body::kLogReply).at(0).log_reply().unknown());
}

TEST_F(AgentTest, OutputBeyondTheLimitIsCutAndTheTaskGoesOn) {
  connect();
  wire::ServerMessage message;
  const AttemptKey key = key_of(id("t"));
  link_->down();
  link_->connect();
  message.mutable_welcome()->set_worker_id("worker_1");
  message.mutable_welcome()->set_cluster_id("cluster");
  message.mutable_welcome()->set_epoch(5);
  message.mutable_welcome()->set_log_bytes_max(200'000);
  link_->deliver(message);
  start("t");
  for (int i = 0; i < 100; ++i) agent_->output(key, LogStreamKind::kStdout, loop_.wall(), std::string(10'000, 'x'));
  EXPECT_EQ(executor_->credited, 1'000'000u);
  finish(key);
  const auto outcomes = link_->take(Body::kOutcome);
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_TRUE(outcomes[0].outcome().log_truncated());
  const std::string& log = link_->blobs.at(outcomes[0].outcome().logs(0).blob().sha256());
  EXPECT_LT(log.size(), 200'200u);
  tasks::LogReader reader(log, 0);
  tasks::LogRecord last;
  for (auto record = reader.next(); record && *record; record = reader.next()) last = **record;
  EXPECT_EQ(last.stream, LogStreamKind::kNotice);
}

TEST_F(AgentTest, CancelOfTheUnknownIsADenialAndAnotherClusterIsRefused) {
  connect();
  wire::ServerMessage message;
  *message.mutable_cancel()->mutable_attempt() = id("nobody");
  link_->deliver(message);
  EXPECT_EQ(link_->take(Body::kDenied).at(0).denied().reason(), wire::DENY_REASON_CANCELLED);
  link_->down();
  link_->connect();
  wire::ServerMessage other;
  other.mutable_welcome()->set_cluster_id("other");
  link_->deliver(other);
  EXPECT_EQ(link_->reconnects.size(), 1u);
}

TEST_F(AgentTest, DrainingDeniesAndLimitsHold) {
  options_.attempts_max = 1;
  boot_agent();
  connect();
  start("one");
  launch("two");
  EXPECT_EQ(link_->take(Body::kDenied).at(0).denied().reason(), wire::DENY_REASON_NO_CAPACITY);
  wire::ServerMessage drain;
  drain.mutable_drain()->set_reason("upgrade");
  link_->deliver(drain);
  launch("three");
  EXPECT_EQ(link_->take(Body::kDenied).at(0).denied().reason(), wire::DENY_REASON_DRAINING);
}

TEST_F(AgentTest, ShutdownStopsReportsAndEnds) {
  connect();
  const AttemptKey key = start("t");
  agent_->shutdown(5000, "signal 15");
  EXPECT_EQ(executor_->cancelled[key].kind, EndKind::kPreempted);
  finish(key, {.kind = EndKind::kPreempted});
  executor_->drained();
  EXPECT_FALSE(ended_);
  acknowledge("t");
  EXPECT_TRUE(ended_);
}

TEST_F(AgentTest, AnAgentThatIsAloneEndsWhenAskedTo) {
  options_.exit_after_alone_ms = 30'000;
  boot_agent();
  connect();
  const AttemptKey key = start("t");
  link_->down();
  loop_.advance(60'000);
  EXPECT_FALSE(ended_) << "an attempt is not over yet";
  finish(key);
  loop_.advance(1'000);
  EXPECT_TRUE(ended_);
}

}  // namespace
}  // namespace uccp::agent
