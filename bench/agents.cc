#include "bench/agents.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <deque>
#include <map>
#include <queue>
#include <string_view>

#include "bench/grpc_calls.h"
#include "uccp/internal/v1/agent.pb.h"

namespace uccp::bench {
namespace {

namespace wire = internal::v1;
using Clock = std::chrono::steady_clock;

constexpr auto kReconnect = std::chrono::milliseconds(200);
constexpr auto kTurn = std::chrono::milliseconds(5);
constexpr size_t kHellosUnderWay = 256;

int64_t now_ns() { return std::chrono::nanoseconds(Clock::now().time_since_epoch()).count(); }

google::protobuf::Timestamp wall_now() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  google::protobuf::Timestamp time;
  time.set_seconds(std::chrono::duration_cast<std::chrono::seconds>(now).count());
  time.set_nanos(static_cast<int32_t>((now % std::chrono::seconds(1)).count()));
  return time;
}

}  // namespace

std::string timed_name() { return fmt::format("t-{}", now_ns()); }

class Agents::Fleet {
 public:
  Fleet(Agents& owner, std::vector<std::unique_ptr<GrpcCalls>> nodes, const AgentsOptions& options)
      : owner_(owner), options_(options), nodes_(std::move(nodes)) {
    for (size_t i = 0; i < options.agents; ++i) {
      agents_.push_back(std::make_unique<Agent>(*this, i));
      waiting_.push_back(i);
    }
  }

  void run() {
    while (!owner_.stop_) {
      const SteadyTime now = Clock::now();
      while (!retries_.empty() && retries_.front().first <= now) {
        waiting_.push_back(retries_.front().second);
        retries_.pop_front();
      }
      // As agents behind an overloaded server do, they come one after the other: each Hello is a command.
      while (!waiting_.empty() && hellos_ < kHellosUnderWay) {
        agents_[waiting_.front()]->connect();
        waiting_.pop_front();
      }
      while (!beats_.empty() && beats_.top().first <= now) {
        const size_t agent = beats_.top().second;
        beats_.pop();
        agents_[agent]->beat(now);
      }
      for (auto& node : nodes_) node->turn(nodes_.size() == 1 ? now + kTurn : now + kTurn / 4);
      if (owner_.take_) {
        owner_.taken_ = std::exchange(owner_.placement_, {});
        owner_.take_ = false;
        owner_.take_.notify_all();
      }
    }
  }

 private:
  struct Agent final : GrpcCaller {
    Agent(Fleet& fleet, size_t number) : fleet(fleet), number(number), id(fmt::format("bench-{:05}", number)) {}

    void connect() {
      fleet.hellos_ += 1;
      waits_for_welcome = true;
      wire::AgentMessage message;
      wire::Hello& hello = *message.mutable_hello();
      hello.set_worker_id(id);
      hello.set_name(id);
      hello.set_incarnation("1");
      hello.set_version("bench");
      hello.set_protocol_version(1);
      hello.set_session(++session);
      hello.set_last_epoch(epoch);
      hello.mutable_capacity()->set_cpu(fleet.options_.cores);
      hello.mutable_capacity()->set_memory(fleet.options_.memory_bytes);
      for (const auto& [key, attempt] : running) {
        wire::RunningAttempt& one = *hello.add_running();
        *one.mutable_attempt() = attempt;
        *one.mutable_start_time() = wall_now();
      }
      for (const auto& [key, outcome] : pending) *hello.add_pending_outcomes() = outcome;
      stream = &fleet.nodes_[node]->open_stream(number, fleet.headers_, *this);
      send(message);
    }
    void send(const wire::AgentMessage& message) {
      if (stream != nullptr) fleet.nodes_[node]->send(number, *stream, message.SerializeAsString());
    }
    void beat(SteadyTime now) {
      beating = false;
      if (stream == nullptr || waits_for_welcome) return;
      wire::AgentMessage message;
      message.mutable_heartbeat()->set_sequence(++sequence);
      send(message);
      next_beat(now);
    }
    void next_beat(SteadyTime now) {
      if (std::exchange(beating, true)) return;
      fleet.beats_.push({now + interval, number});
    }

    void on_ended(GrpcCall&, SteadyTime now) override {
      stream = nullptr;
      if (waits_for_welcome) fleet.hellos_ -= 1;
      else fleet.owner_.connected_ -= 1;
      waits_for_welcome = false;
      fleet.owner_.reconnects_ += 1;
      node = (node + 1) % fleet.nodes_.size();
      fleet.retries_.emplace_back(now + kReconnect, number);
    }
    void on_message(GrpcCall&, std::string_view bytes) override {
      wire::ServerMessage message;
      if (!message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
      if (message.has_welcome()) return welcome(message.welcome());
      if (message.has_launch()) return launch(message.launch());
      if (message.has_outcome_ack()) return acknowledged(message.outcome_ack());
    }
    void welcome(const wire::Welcome& welcome) {
      if (std::exchange(waits_for_welcome, false)) {
        fleet.hellos_ -= 1;
        fleet.owner_.connected_ += 1;
      }
      fleet.owner_.last_welcome_ns_ = now_ns();
      epoch = welcome.epoch();
      interval = std::chrono::milliseconds(welcome.heartbeat_interval().seconds() * 1000 +
                                           welcome.heartbeat_interval().nanos() / 1'000'000);
      for (const wire::AttemptId& attempt : welcome.kill()) {
        fleet.owner_.killed_ += running.erase(attempt.SerializeAsString());
      }
      for (const wire::AttemptId& attempt : welcome.acknowledged()) pending.erase(attempt.SerializeAsString());
      // Spread over the interval, as agents that started at different times are.
      const auto now = Clock::now();
      if (!std::exchange(beating, true)) fleet.beats_.push({now + interval * (number % 97) / 97, number});
    }
    void launch(const wire::LaunchAttempt& launch) {
      const int64_t now = now_ns();
      int64_t none = -1;
      fleet.owner_.first_launch_ns_.compare_exchange_strong(none, now);
      fleet.owner_.launched_ += 1;
      int64_t began = 0;
      const std::string& name = launch.task().name();
      if (name.starts_with("t-") &&
          std::from_chars(name.data() + 2, name.data() + name.size(), began).ec == std::errc()) {
        fleet.owner_.placement_.record(now - began);
      }
      const std::string key = launch.attempt().SerializeAsString();
      wire::AgentMessage started;
      *started.mutable_started()->mutable_attempt() = launch.attempt();
      *started.mutable_started()->mutable_start_time() = wall_now();
      send(started);
      if (fleet.options_.hold) {
        running[key] = launch.attempt();
        return;
      }
      wire::AgentMessage ended;
      wire::AttemptOutcome& outcome = *ended.mutable_outcome();
      *outcome.mutable_attempt() = launch.attempt();
      outcome.set_kind(v1::ATTEMPT_OUTCOME_KIND_EXITED);
      outcome.set_exit_code(0);
      outcome.set_message("exit code 0");
      *outcome.mutable_start_time() = wall_now();
      *outcome.mutable_end_time() = wall_now();
      pending[key] = outcome;
      send(ended);
    }
    void acknowledged(const wire::OutcomeAck& ack) {
      if (pending.erase(ack.attempt().SerializeAsString()) == 0) return;
      (ack.accepted() ? fleet.owner_.finished_ : fleet.owner_.refused_) += 1;
    }

    Fleet& fleet;
    const size_t number;
    const std::string id;
    GrpcCall* stream = nullptr;
    size_t node = 0;
    uint64_t epoch = 0, session = 0, sequence = 0;
    bool waits_for_welcome = false, beating = false;
    std::chrono::milliseconds interval{1000};
    std::map<std::string, wire::AttemptId> running;
    std::map<std::string, wire::AttemptOutcome> pending;
  };

  using Beat = std::pair<SteadyTime, size_t>;
  Agents& owner_;
  const AgentsOptions options_;
  std::vector<std::unique_ptr<GrpcCalls>> nodes_;
  const CallHeaders headers_{"uccp.internal.v1.AgentLink/Connect"};
  std::vector<std::unique_ptr<Agent>> agents_;
  std::deque<size_t> waiting_;
  std::deque<Beat> retries_;
  std::priority_queue<Beat, std::vector<Beat>, std::greater<>> beats_;
  size_t hellos_ = 0;
};

Result<std::unique_ptr<Agents>> Agents::start(const std::vector<std::string>& nodes, const TlsIdentity& tls,
                                              const AgentsOptions& options) {
  std::vector<std::unique_ptr<GrpcCalls>> calls;
  for (const std::string& node : nodes) {
    UCCP_TRY(auto connected, GrpcCalls::connect({node}, tls, options.connections_per_node));
    calls.push_back(std::move(connected));
  }
  std::unique_ptr<Agents> agents(new Agents());
  agents->fleet_ = std::make_unique<Fleet>(*agents, std::move(calls), options);
  agents->thread_ = std::thread([fleet = agents->fleet_.get()] { fleet->run(); });
  return agents;
}

Agents::~Agents() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
}

LatencyHistogram Agents::take_placement() {
  take_ = true;
  take_.wait(true);
  return std::exchange(taken_, {});
}

}  // namespace uccp::bench
