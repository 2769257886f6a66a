// What the tests of the agent's core share: a loop and a clock that stand still, a link and an executor that are not
// there, and an agent between them.
#pragma once

#include "agent/agent.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "agent/wire.h"
#include "base/bytes.h"
#include "base/hash.h"
#include "runtime/posix_file_system.h"

namespace uccp::agent {

using tasks::LogStreamKind;

class ManualLoop final : public Executor, public Clock {
 public:
  BootTime boot() const override { return {now_us}; }
  WallTime wall() const override { return {1'700'000'000'000'000 + now_us}; }
  void post(Task task) override { queue_.push_back(std::move(task)); }
  TimerId post_after(int64_t delay_ms, Task task) override {
    timers_.emplace(std::pair(now_us + delay_ms * 1000, ++last_timer_), std::move(task));
    return last_timer_;
  }
  void cancel(TimerId timer) override {
    std::erase_if(timers_, [&](const auto& item) { return item.first.second == timer; });
  }
  bool is_current() const override { return true; }

  void settle() {
    while (!queue_.empty()) {
      Task task = std::move(queue_.front());
      queue_.erase(queue_.begin());
      task();
    }
  }
  void advance(int64_t ms) {
    const int64_t end = now_us + ms * 1000;
    settle();
    while (!timers_.empty() && timers_.begin()->first.first <= end) {
      now_us = std::max(now_us, timers_.begin()->first.first);
      Task task = std::move(timers_.begin()->second);
      timers_.erase(timers_.begin());
      task();
      settle();
    }
    now_us = end;
  }
  int64_t now_us = 1'000'000;

 private:
  std::vector<Task> queue_;
  std::map<std::pair<int64_t, TimerId>, Task> timers_;
  TimerId last_timer_ = 0;
};

class FakeLink final : public ServerLink {
 public:
  explicit FakeLink(ManualLoop& loop) : loop_(loop) {}
  void start(LinkObserver& observer) override { observer_ = &observer; }
  void stop() override {}
  void send(wire::AgentMessage message) override {
    if (up) sent.push_back(std::move(message));
  }
  size_t queued_bytes() const override { return queued; }
  void reconnect(const std::string& why) override {
    reconnects.push_back(why);
    down();
  }
  void put_blob(BlobSource source, const wire::AttemptId&, Done done) override {
    std::string content = source.data;
    if (!source.path.empty()) {
      std::ifstream file(source.path, std::ios::binary);
      content.assign(std::istreambuf_iterator<char>(file), {});
    }
    const Status answer = up ? put_answer : Status(Code::kUnavailable, "LINK_DOWN", "down");
    if (answer.is_ok()) {
      EXPECT_EQ(to_hex(sha256(content)), source.sha256);
      blobs[source.sha256] = content;
    }
    loop_.post([done = std::move(done), answer]() mutable { done(answer); });
  }
  void get_blob(const std::string& id, const wire::AttemptId&, std::unique_ptr<objects::BlobWriter> into,
                Done done) override {
    gets += 1;
    Status status(Code::kNotFound, "BLOB_NOT_FOUND", "no such blob");
    if (blobs.contains(id)) {
      status = into->append(blobs[id]);
      if (status.is_ok()) {
        if (auto stored = into->finish(id); !stored) status = stored.error();
      }
    }
    loop_.post([done = std::move(done), status]() mutable { done(status); });
  }

  void connect() {
    up = true;
    observer_->link_up();
  }
  void down() {
    if (!std::exchange(up, false)) return;
    observer_->link_down(Status(Code::kUnavailable, "TEST", "cut"));
  }
  void deliver(wire::ServerMessage message) {
    observer_->received(std::move(message));
    loop_.settle();
  }
  // The messages of one kind since the last call of take().
  std::vector<wire::AgentMessage> take(wire::AgentMessage::BodyCase kind) {
    std::vector<wire::AgentMessage> found;
    std::erase_if(sent, [&](wire::AgentMessage& message) {
      if (message.body_case() != kind) return false;
      found.push_back(std::move(message));
      return true;
    });
    return found;
  }

  bool up = false;
  size_t queued = 0;
  int gets = 0;
  Status put_answer;
  std::vector<wire::AgentMessage> sent;
  std::vector<std::string> reconnects;
  std::map<std::string, std::string> blobs;

 private:
  ManualLoop& loop_;
  LinkObserver* observer_ = nullptr;
};

class FakeExecutor final : public ExecutorBackend {
 public:
  void launch(std::vector<AttemptSpec> specs) override {
    for (AttemptSpec& spec : specs) launched.push_back(std::move(spec));
  }
  void cancel(const AttemptKey& key, const CancelOptions& options) override { cancelled[key] = options; }
  void credit(const AttemptKey&, size_t bytes) override { credited += bytes; }
  void materialize(AttemptSpec, std::move_only_function<void(Status)> done) override { done({}); }
  void release(const AttemptKey& key) override { released.push_back(key); }
  Capacity capacity() const override { return {2000, 1 << 30, 1 << 30}; }
  AttemptUse usage(const AttemptKey&) const override { return {}; }
  std::vector<std::string> reconcile() override { return leftovers; }
  void drain(const CancelOptions&, std::move_only_function<void()> done) override { drained = std::move(done); }

  std::vector<AttemptSpec> launched;
  std::map<AttemptKey, CancelOptions> cancelled;
  std::vector<AttemptKey> released;
  std::vector<std::string> leftovers;
  size_t credited = 0;
  std::move_only_function<void()> drained;
};

class AgentTest : public testing::Test {
 protected:
  using Body = wire::AgentMessage::BodyCase;

  AgentTest() {
    std::string name = "/tmp/uccp_agent_XXXXXX";
    options_.data_directory = mkdtemp(name.data());
    options_.incarnation = "one";
    options_.name = "w";
    boot_agent();
  }
  ~AgentTest() override {
    agent_.reset();
    std::filesystem::remove_all(options_.data_directory);
  }

  // Also the restart after a crash: nothing of the old one is called any more.
  void boot_agent(std::vector<std::string> leftovers = {}) {
    agent_.reset();
    link_ = std::make_unique<FakeLink>(loop_);
    executor_ = std::make_unique<FakeExecutor>();
    executor_->leftovers = std::move(leftovers);
    auto agent = Agent::open(loop_, loop_, files_, *link_, options_, [this] { ended_ = true; });
    ASSERT_TRUE(agent) << agent.error().to_string();
    agent_ = std::move(*agent);
    agent_->start(*executor_);
  }
  wire::Hello connect(uint64_t epoch = 5, int64_t lease_ms = 10'000) {
    link_->connect();
    auto hello = link_->take(Body::kHello);
    wire::ServerMessage message;
    message.mutable_welcome()->set_worker_id("worker_1");
    message.mutable_welcome()->set_cluster_id("cluster");
    message.mutable_welcome()->set_epoch(epoch);
    *message.mutable_welcome()->mutable_lease() = duration_of(lease_ms);
    *message.mutable_welcome()->mutable_heartbeat_interval() = duration_of(1000);
    link_->deliver(message);
    return hello.empty() ? wire::Hello() : hello[0].hello();
  }
  static wire::AttemptId id(const std::string& task, uint64_t epoch = 5) {
    wire::AttemptId id;
    id.set_task_id(task);
    id.set_namespace_("default");
    id.set_tenant("default");
    id.set_term(1);
    id.set_sequence(1);
    id.set_worker_id("worker_1");
    id.set_worker_epoch(epoch);
    id.set_attempt_number(1);
    return id;
  }
  static wire::ServerMessage launch_message(const wire::AttemptId& id) {
    wire::ServerMessage message;
    *message.mutable_launch()->mutable_attempt() = id;
    message.mutable_launch()->mutable_task()->add_command("true");
    return message;
  }
  void launch(const std::string& task, uint64_t epoch = 5) { link_->deliver(launch_message(id(task, epoch))); }
  AttemptKey start(const std::string& task) {
    launch(task);
    const AttemptKey key = key_of(id(task));
    agent_->started(key, loop_.wall());
    return key;
  }
  void finish(const AttemptKey& key, AttemptEnd end = {.exit_code = 0}) {
    end.end = loop_.wall();
    agent_->finished(key, std::move(end));
    loop_.settle();
  }
  void acknowledge(const std::string& task) {
    wire::ServerMessage message;
    *message.mutable_outcome_ack()->mutable_attempt() = id(task);
    link_->deliver(message);
  }
  // Answers all heartbeats that were sent.
  void confirm() {
    for (const auto& beat : link_->take(Body::kHeartbeat)) {
      wire::ServerMessage message;
      message.mutable_heartbeat_ack()->set_sequence(beat.heartbeat().sequence());
      *message.mutable_heartbeat_ack()->mutable_lease_until() = duration_of(10'000);
      link_->deliver(message);
    }
  }

  ManualLoop loop_;
  runtime::PosixFileSystem files_;
  AgentOptions options_;
  std::unique_ptr<FakeLink> link_;
  std::unique_ptr<FakeExecutor> executor_;
  std::unique_ptr<Agent> agent_;
  bool ended_ = false;
};

}  // namespace uccp::agent
