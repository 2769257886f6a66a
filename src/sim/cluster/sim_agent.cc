#include "sim/cluster/sim_agent.h"

#include <algorithm>

#include "sim/cluster/sim_cluster.h"

namespace uccp::sim {
namespace {

using internal::v1::AgentMessage;
using internal::v1::AttemptId;
using internal::v1::AttemptOutcome;
using internal::v1::ServerMessage;

constexpr int64_t kWelcomeLimitUs = 400'000;
constexpr int64_t kKillUsMax = 20'000;
constexpr double kCpus = 4;

std::string key_of(const AttemptId& id) {
  return id.task_id() + "#" + std::to_string(id.attempt_number()) + "@" + id.worker_id() + "/" +
         std::to_string(id.worker_epoch()) + ":" + std::to_string(id.term()) + "." + std::to_string(id.sequence());
}

// As the command names it that stops gangs.
std::string gang_key_of(const AttemptId& id) {
  return id.task_id() + ":" + std::to_string(id.term()) + "." + std::to_string(id.sequence());
}

std::string describe(const ServerMessage& message) {
  switch (message.body_case()) {
    case ServerMessage::kWelcome: return "welcome, epoch " + std::to_string(message.welcome().epoch());
    case ServerMessage::kLaunch: return "launch " + key_of(message.launch().attempt());
    case ServerMessage::kCancel: return "cancel " + key_of(message.cancel().attempt());
    case ServerMessage::kOutcomeAck:
      return (message.outcome_ack().accepted() ? "took " : "refused ") + key_of(message.outcome_ack().attempt());
    case ServerMessage::kHeartbeatAck: return "confirmed heartbeat";
    default: return "another message";
  }
}

int64_t to_us(const google::protobuf::Duration& d) { return d.seconds() * 1'000'000 + d.nanos() / 1000; }

}  // namespace

// One connection. Each end closes for itself; what is under way to a closed end is dropped.
struct SimAgent::Link {
  SimNode* node = nullptr;
  uint64_t generation = 0;  // of the node's process
  bool agent_open = true;
  bool server_open = true;
  int64_t to_agent_us = 0;
  std::shared_ptr<tasks::AgentSession> session;
  int64_t to_server_us = 0;  // when the last message over it arrives: order is kept within a connection only
};

// The server's end.
class SimAgent::Session final : public tasks::AgentSession {
 public:
  Session(SimAgent& agent, std::weak_ptr<Link> link) : agent_(agent), link_(std::move(link)) {}

  void send(ServerMessage message) override {
    if (agent_.cluster_.tracing()) agent_.cluster_.note("to " + agent_.worker_id_ + ": " + describe(message));
    to_agent([&agent = agent_, message = std::move(message)](const std::shared_ptr<Link>& link) {
      agent.receive(link, message);
    });
  }
  void close(Status status) override {
    agent_.cluster_.note(agent_.worker_id_ + ": stream closed by the server: " + std::string(status.reason()));
    const auto link = link_.lock();
    if (!link || !link->server_open) return;
    to_agent([&agent = agent_, hint = status.detail().leader_hint](const std::shared_ptr<Link>& closed) {
      if (!hint.empty()) agent.leader_ = NodeId(std::stoull(hint));
      if (agent.link_ == closed) agent.link_down();
    });
    link->server_open = false;
  }

 private:
  void to_agent(std::function<void(const std::shared_ptr<Link>&)> work) {
    const auto link = link_.lock();
    if (!link || !link->server_open) return;
    const int64_t at =
        std::max(agent_.scheduler_.now_us() + agent_.cluster_.latency_us(), agent_.partitioned_until_us_);
    link->to_agent_us = std::max(link->to_agent_us, at);
    agent_.scheduler_.schedule_at(link->to_agent_us, [link, work = std::move(work)] {
      if (link->agent_open) work(link);
    });
  }

  SimAgent& agent_;
  std::weak_ptr<Link> link_;
};

SimAgent::SimAgent(SimCluster& cluster, size_t number, uint64_t seed)
    : cluster_(cluster),
      scheduler_(cluster.scheduler()),
      number_(number),
      random_(seed),
      clock_(scheduler_.time()),
      worker_id_("worker-" + std::to_string(number)) {}

SimAgent::~SimAgent() = default;

SimScheduler::EventId SimAgent::after_us(int64_t boot_us, std::function<void()> work) {
  return scheduler_.schedule_after(clock_.virtual_us_for(boot_us), [this, process = process_, work = std::move(work)] {
    if (alive_ && process == process_) work();
  });
}

// The process.
// ----------------------------------------------------------------------------------------------------------

void SimAgent::start() {
  ++process_;
  alive_ = true;
  lease_end_ = {};
  cluster_.note(worker_id_ + ": process " + std::to_string(process_) + " starts");
  connect();
}

void SimAgent::kill(int64_t down_ms) {
  if (!alive_) return;
  cluster_.note(worker_id_ + ": killed");
  alive_ = false;
  if (link_) link_down();
  // What ran dies with it. What had ended while the link was up was in memory only: both are reported as lost.
  std::map<std::string, AttemptOutcome> lost;
  for (const auto& [key, run] : runs_) {
    scheduler_.cancel(run.end);
    cluster_.checkers().runs.ended(run.id.task_id(), key);
    cluster_.checkers().gangs.ended(gang_key_of(run.id));
    lost[key] = outcome_of(run.id, v1::ATTEMPT_OUTCOME_KIND_LOST);
  }
  for (const auto& [key, outcome] : outcomes_) {
    const bool stored = random_.chance(0.5);
    lost[key] = stored ? outcome : outcome_of(outcome.attempt(), v1::ATTEMPT_OUTCOME_KIND_LOST);
  }
  runs_.clear();
  denials_.clear();
  outcomes_ = std::move(lost);
  scheduler_.schedule_after(down_ms * 1000, [this] {
    if (!alive_) start();
  });
}

void SimAgent::disconnect() {
  if (link_) link_down();
}

void SimAgent::partition(int64_t ms) {
  cluster_.note(worker_id_ + ": partitioned for " + std::to_string(ms) + " ms");
  partitioned_until_us_ = std::max(partitioned_until_us_, scheduler_.now_us() + ms * 1000);
}

void SimAgent::node_down(const SimNode& node) {
  if (!link_ || link_->node != &node) return;
  link_->server_open = false;
  link_->session.reset();
  const auto link = link_;
  scheduler_.schedule_after(below(100'000), [this, link] {
    if (link_ == link) link_down();
  });
}

void SimAgent::heal() {
  clock_.set_drift_ppm(0);
  partitioned_until_us_ = 0;
  if (!alive_) start();
}

// The connection.
// -------------------------------------------------------------------------------------------------------

void SimAgent::connect_later() {
  after_us(10'000 + below(150'000), [this] { connect(); });
}

void SimAgent::connect() {
  if (link_) return;
  size_t place = leader_ ? cluster_.place_of(std::exchange(leader_, {})) : cluster_.places();
  if (place == cluster_.places()) place = cluster_.any_place(random_);
  SimNode& node = cluster_.node(place);
  if (!node.running() || scheduler_.now_us() < partitioned_until_us_) return connect_later();
  link_ = std::make_shared<Link>();
  link_->node = &node;
  link_->generation = node.generation();
  link_->session = std::make_shared<Session>(*this, link_);
  welcomed_ = false;
  send_hello();
  after_us(kWelcomeLimitUs, [this, link = link_] {
    if (link_ == link && !welcomed_) link_down();
  });
}

void SimAgent::link_down() {
  const auto link = std::move(link_);
  link_.reset();
  link->agent_open = false;
  welcomed_ = false;
  heartbeats_.clear();
  if (alive_) connect_later();
  if (!link->session) return;
  // The server learns it later, behind what was sent before.
  const int64_t noticed_us = scheduler_.now_us() + cluster_.latency_us() + below(50'000);
  link->to_server_us = std::max({link->to_server_us, noticed_us, partitioned_until_us_});
  scheduler_.schedule_at(link->to_server_us, [link] {
    SimNode& node = *link->node;
    if (!node.running() || node.generation() != link->generation) return;
    node.loop().post([&node, link] {
      link->server_open = false;
      node.work().closed(link->session);
      link->session.reset();
    });
  });
}

void SimAgent::send(AgentMessage message) {
  if (!link_) return;
  const int64_t arrives_us = scheduler_.now_us() + cluster_.latency_us();
  link_->to_server_us = std::max({link_->to_server_us, arrives_us, partitioned_until_us_});
  scheduler_.schedule_at(link_->to_server_us, [link = link_, message = std::move(message)] {
    SimNode& node = *link->node;
    if (!node.running() || node.generation() != link->generation || !link->session) return;
    node.loop().post([&node, session = link->session, message] { node.work().receive(session, message); });
  });
}

void SimAgent::send_hello() {
  AgentMessage message;
  auto& hello = *message.mutable_hello();
  hello.set_worker_id(worker_id_);
  hello.set_incarnation(worker_id_ + "." + std::to_string(process_));
  hello.set_name(worker_id_);
  hello.set_protocol_version(1);
  hello.mutable_capacity()->set_cpu(kCpus);
  hello.mutable_capacity()->set_memory(uint64_t{8} << 30);
  hello.set_last_epoch(epoch_);
  hello.set_session(static_cast<uint64_t>(process_) << 32 | ++sessions_);
  for (const auto& [key, run] : runs_) {
    auto& running = *hello.add_running();
    *running.mutable_attempt() = run.id;
    running.set_stopping(run.stopping);
  }
  in_hello_.clear();
  for (const auto& [key, outcome] : outcomes_) {
    *hello.add_pending_outcomes() = outcome;
    in_hello_.insert(key);
  }
  hello_sent_ = clock_.boot();
  send(std::move(message));
}

void SimAgent::receive(const std::shared_ptr<Link>& link, const ServerMessage& message) {
  if (!alive_ || link_ != link) return;
  using Body = ServerMessage;
  if (!welcomed_ && message.body_case() != Body::kWelcome) return link_down();
  switch (message.body_case()) {
    case Body::kWelcome: return welcome(message.welcome());
    case Body::kHeartbeatAck: return heartbeat_ack(message.heartbeat_ack());
    case Body::kLaunch: return launch(message.launch());
    case Body::kCancel: return cancel(message.cancel());
    case Body::kOutcomeAck: return acknowledged(message.outcome_ack().attempt());
    default: return;
  }
}

void SimAgent::welcome(const internal::v1::Welcome& welcome) {
  welcomed_ = true;
  epoch_ = welcome.epoch();
  extend_lease(hello_sent_);
  for (const AttemptId& id : welcome.acknowledged()) acknowledged(id);
  for (const AttemptId& id : welcome.kill()) {
    if (const auto it = runs_.find(key_of(id)); it != runs_.end()) {
      stop(it->second, v1::ATTEMPT_OUTCOME_KIND_LOST, below(kKillUsMax));
    }
  }
  for (auto& [key, run] : runs_) {
    if (run.id.worker_epoch() < epoch_) stop(run, v1::ATTEMPT_OUTCOME_KIND_LOST, below(kKillUsMax));
  }
  for (const auto& [key, denied] : denials_) {
    AgentMessage message;
    *message.mutable_denied() = denied;
    send(std::move(message));
  }
  // What ended since Hello; a repetition of what Hello carried must do no harm.
  for (const auto& [key, outcome] : outcomes_) {
    if (!in_hello_.contains(key) || random_.chance(0.2)) report(outcome);
  }
  heartbeat();
}

void SimAgent::heartbeat() {
  if (!welcomed_) return;
  const BootTime now = clock_.boot();
  if (!heartbeats_.empty() && now.ms_since(heartbeats_.begin()->second) > cluster_.options().agent_lease_ms / 2) {
    return link_down();
  }
  AgentMessage message;
  message.mutable_heartbeat()->set_sequence(++heartbeat_);
  heartbeats_[heartbeat_] = now;
  send(std::move(message));
  after_us(cluster_.options().heartbeat_ms * 1000, [this, link = link_] {
    if (link_ == link) heartbeat();
  });
}

void SimAgent::heartbeat_ack(const internal::v1::HeartbeatAck& ack) {
  const auto sent = heartbeats_.find(ack.sequence());
  if (sent == heartbeats_.end()) return;
  extend_lease(sent->second);
  heartbeats_.erase(heartbeats_.begin(), std::next(sent));
}

void SimAgent::extend_lease(BootTime sent) {
  lease_end_ = std::max(lease_end_, sent.plus_ms(cluster_.options().agent_lease_ms));
  watch_lease();
}

// A clock that was made slower meanwhile is not at the end yet.
void SimAgent::watch_lease() {
  after_us(lease_end_.us - clock_.boot().us, [this, end = lease_end_] {
    if (end != lease_end_) return;
    if (clock_.boot() < end) return watch_lease();
    end_lease();
  });
}

void SimAgent::end_lease() {
  for (auto& [key, run] : runs_) {
    if (!run.stopping) stop(run, v1::ATTEMPT_OUTCOME_KIND_LOST, below(kKillUsMax));
  }
}

// Attempts.
// -------------------------------------------------------------------------------------------------------------

void SimAgent::launch(const internal::v1::LaunchAttempt& launch) {
  const AttemptId& id = launch.attempt();
  const std::string key = key_of(id);
  if (const auto known = outcomes_.find(key); known != outcomes_.end()) return report(known->second);
  if (runs_.contains(key) || denials_.contains(key) || forgotten_.contains(key)) return;
  if (id.worker_epoch() != epoch_ || lease_end_ <= clock_.boot() || random_.chance(0.02)) return deny(id);
  Run& run = runs_[key];
  run.id = id;
  run.key = key;
  run.end = after_us(1000 + below(below(10) == 0 ? 2'000'000 : 200'000), [this, key] { end_by_itself(key); });
  cluster_.checkers().runs.started(id.task_id(), key, scheduler_.now_us());
  if (launch.task().has_gang()) cluster_.checkers().gangs.started(launch.task().gang().id(), gang_key_of(id));
  if (cluster_.tracing()) cluster_.note("run " + key);
  AgentMessage message;
  *message.mutable_started()->mutable_attempt() = id;
  message.mutable_started()->mutable_start_time()->set_seconds(clock_.wall().us / 1'000'000);
  send(std::move(message));
}

void SimAgent::cancel(const internal::v1::CancelAttempt& cancel) {
  const std::string key = key_of(cancel.attempt());
  if (const auto known = outcomes_.find(key); known != outcomes_.end()) return report(known->second);
  const auto run = runs_.find(key);
  if (run == runs_.end()) {
    if (!forgotten_.contains(key)) deny(cancel.attempt());
    return;
  }
  if (!run->second.stopping) stop(run->second, cancel.kind(), below(to_us(cancel.grace()) + 1000));
}

void SimAgent::deny(const AttemptId& id) {
  AgentMessage message;
  *message.mutable_denied()->mutable_attempt() = id;
  message.mutable_denied()->set_message("simulated");
  denials_[key_of(id)] = message.denied();
  cluster_.note(worker_id_ + ": denies " + key_of(id));
  send(std::move(message));
}

void SimAgent::acknowledged(const AttemptId& id) {
  const std::string key = key_of(id);
  outcomes_.erase(key);
  denials_.erase(key);
  forgotten_.insert(key);
}

AttemptOutcome SimAgent::outcome_of(const AttemptId& id, v1::AttemptOutcomeKind kind) const {
  AttemptOutcome outcome;
  *outcome.mutable_attempt() = id;
  outcome.set_kind(kind);
  outcome.set_worker_fault(kind == v1::ATTEMPT_OUTCOME_KIND_LOST);
  outcome.mutable_end_time()->set_seconds(clock_.wall().us / 1'000'000);
  return outcome;
}

void SimAgent::end_by_itself(const std::string& key) {
  const uint64_t fate = random_.below(100);
  const AttemptId id = runs_.at(key).id;
  AttemptOutcome outcome = outcome_of(id, fate < 94   ? v1::ATTEMPT_OUTCOME_KIND_EXITED
                                          : fate < 97 ? v1::ATTEMPT_OUTCOME_KIND_SIGNALLED
                                                      : v1::ATTEMPT_OUTCOME_KIND_TIMED_OUT);
  if (fate < 94) outcome.set_exit_code(fate < 70 ? 0 : 1);
  else outcome.set_signal(9);
  ended(key, std::move(outcome));
}

void SimAgent::stop(Run& run, v1::AttemptOutcomeKind kind, int64_t delay_us) {
  run.stopping = true;
  scheduler_.cancel(run.end);
  run.end = after_us(delay_us, [this, key = run.key, kind] { ended(key, outcome_of(runs_.at(key).id, kind)); });
}

void SimAgent::ended(const std::string& key, AttemptOutcome outcome) {
  cluster_.checkers().runs.ended(outcome.attempt().task_id(), key);
  cluster_.checkers().gangs.ended(gang_key_of(outcome.attempt()));
  if (cluster_.tracing()) cluster_.note("end " + key + " kind " + std::to_string(outcome.kind()));
  runs_.erase(key);
  const AttemptOutcome& kept = outcomes_[key] = std::move(outcome);
  report(kept);
  if (random_.chance(0.02)) report(kept);
}

void SimAgent::report(const AttemptOutcome& outcome) {
  if (!welcomed_) return;
  AgentMessage message;
  *message.mutable_outcome() = outcome;
  send(std::move(message));
}

}  // namespace uccp::sim
