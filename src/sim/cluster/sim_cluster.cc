#include "sim/cluster/sim_cluster.h"

#include <cstdio>

#include "sim/cluster/sim_agent.h"

namespace uccp::sim {
namespace {

constexpr int64_t kStartRetryUs = 200'000;
constexpr int64_t kReadyPollUs = 10'000;
constexpr int64_t kReadyLimitUs = 20'000'000;

// "registers:VALUE" or "tasks:ID", as clients name what was acknowledged.
bool contains(const machine::GroupView& state, const std::string& key) {
  const std::string name = key.substr(key.find(':') + 1);
  if (key.starts_with("tasks:")) return work::kTasks.contains(state, {"t", "n"}, name);
  return count_effects(state, std::stoull(name)) == 1;
}

}  // namespace

SimCluster::SimCluster(const SimOptions& options, bool tracing)
    : options_(options), tracing_(tracing), checkers_(options.drift_ppm_max), random_(options.seed) {
  for (size_t i = 0; i < options_.nodes; ++i) {
    nodes_.push_back(std::make_unique<SimNode>(scheduler_, options_, NodeId(i + 1), random_.next(), checkers_,
                                               [this, i](const Status& status) { fatal(i, status); }));
    starting_.push_back(false);
  }
  for (size_t i = 0; i < options_.agents; ++i) agents_.push_back(std::make_unique<SimAgent>(*this, i, random_.next()));
}

SimCluster::~SimCluster() = default;

void SimCluster::note(const std::string& line) const {
  if (tracing_) std::printf("[%10.6f] %s\n", static_cast<double>(now_us()) / 1e6, line.c_str());
}

// The process cannot go on. It is ended outside of its own task.
void SimCluster::fatal(size_t number, const Status& status) {
  note("node " + std::to_string(number) + " stops: " + status.to_string());
  const bool disk = status.code() == Code::kUnavailable || status.code() == Code::kExhausted;
  if (!disk) checkers_.violations.add("fatal", status.to_string());
  scheduler_.schedule_after(0, [this, number, generation = nodes_[number]->generation()] {
    if (!nodes_[number]->running() || nodes_[number]->generation() != generation) return;
    crash_node(number, CrashKind::kLoseUnsynced, 50);
  });
}

void SimCluster::start_node(size_t number) {
  starting_[number] = false;
  std::vector<NodeId> founders;
  for (const auto& node : nodes_) founders.push_back(node->id());
  const Status status = nodes_[number]->start(founders);
  if (status.is_ok()) {
    note("node " + std::to_string(number) + " started");
    return watch_readiness(number, nodes_[number]->generation());
  }
  note("node " + std::to_string(number) + " did not start: " + status.to_string());
  const bool disk = status.code() == Code::kUnavailable || status.code() == Code::kExhausted;
  if (!disk) return checkers_.violations.add("start", status.to_string());
  // A start that failed half way may have left writes unsynced, as any crash.
  nodes_[number]->crash(CrashKind::kTearUnsynced);
  starting_[number] = true;
  scheduler_.schedule_after(kStartRetryUs, [this, number] { start_node(number); });
}

void SimCluster::crash_node(size_t number, CrashKind kind, int64_t down_ms) {
  if (!nodes_[number]->running() || starting_[number]) return;
  note("node " + std::to_string(number) + " crashes, kind " + std::to_string(static_cast<int>(kind)));
  for (const auto& agent : agents_) agent->node_down(number);
  nodes_[number]->crash(kind);
  starting_[number] = true;
  scheduler_.schedule_after(down_ms * 1000, [this, number] { start_node(number); });
}

void SimCluster::start_agents() {
  for (const auto& agent : agents_) agent->start();
}

void SimCluster::watch_readiness(size_t number, uint64_t generation) {
  SimNode& node = *nodes_[number];
  if (!node.running() || node.generation() != generation) return;
  if (node.ready()) {
    note("node " + std::to_string(number) + " is ready");
    return check_after_restart(number);
  }
  scheduler_.schedule_after(kReadyPollUs, [this, number, generation] { watch_readiness(number, generation); });
}

void SimCluster::check_after_restart(size_t number) {
  SimNode& node = *nodes_[number];
  node.check_state();
  for (const GroupId group : {kCoreGroup, kWorkGroup}) {
    const machine::GroupView view = node.node().view(group);
    checkers_.durability.check(group, view.applied(), [&](const std::string& key) { return contains(view, key); });
  }
}

void SimCluster::heal() {
  healed_ = true;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    SimNode& node = *nodes_[i];
    node.files().set_capacity(0);
    node.clock().set_drift_ppm(0);
    node.set_disk_us(options_.disk_us);
    node.resume();
    if (node.files().has_failed()) crash_node(i, CrashKind::kTearUnsynced, 10);
    const bool up = scheduler_.run_until([&] { return node.ready(); }, now_us() + kReadyLimitUs);
    if (!up) checkers_.violations.add("progress", "a healed node does not become ready");
  }
  for (const auto& agent : agents_) agent->heal();
}

int64_t SimCluster::latency_us() {
  return 20 + static_cast<int64_t>(random_.below(static_cast<uint64_t>(options_.latency_us_max)));
}

void SimCluster::call(size_t number, Serve serve, Reply reply) {
  const double loss = healed_ ? 0 : options_.loss;
  if (random_.chance(loss)) return;
  scheduler_.schedule_after(latency_us(), [this, number, loss, serve = std::move(serve), reply = std::move(reply)] {
    Reply answer = [this, loss, reply](Result<machine::Applied> result) {
      if (random_.chance(loss)) return;
      auto boxed = std::make_shared<Result<machine::Applied>>(std::move(result));
      scheduler_.schedule_after(latency_us(), [reply, boxed] { reply(std::move(*boxed)); });
    };
    SimNode& node = *nodes_[number];
    if (!node.running()) return answer(fail(Code::kUnavailable, "NODE_DOWN", "nobody listens"));
    serve(node, std::move(answer));
  });
}

SimCluster::Serve SimCluster::propose(GroupId group, machine::Envelope envelope) {
  return [group, envelope = std::move(envelope)](SimNode& node, Reply reply) {
    node.node().propose(group, envelope, std::move(reply));
  };
}

SimCluster::Serve SimCluster::read(GroupId group, machine::ReadLevel level, Query query) {
  return [group, level = std::move(level), query = std::move(query)](SimNode& node, Reply reply) {
    node.node().read(group, level, [query, reply](Result<machine::GroupView> view) {
      if (!view) return reply(std::unexpected(view.error()));
      reply(machine::Applied{view->applied(), query(*view)});
    });
  };
}

SimCluster::Serve SimCluster::keep_alive(GroupId group, machine::LeaseId lease) {
  return [group, lease](SimNode& node, Reply reply) {
    node.node().keep_alive(group, lease, [reply](Result<int64_t> ttl_ms) {
      if (!ttl_ms) return reply(std::unexpected(ttl_ms.error()));
      reply(machine::Applied{LogIndex(0), std::to_string(*ttl_ms)});
    });
  };
}

SimCluster::Serve SimCluster::cancel_task(machine::Envelope envelope, internal::v1::CancelCommand command) {
  return [envelope = std::move(envelope), command = std::move(command)](SimNode& node, Reply reply) {
    node.loop().post([&node, envelope, command, reply]() mutable {
      node.work().cancel(std::move(envelope), std::move(command), std::move(reply));
    });
  };
}

}  // namespace uccp::sim
