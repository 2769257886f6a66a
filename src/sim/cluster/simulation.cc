#include "sim/cluster/simulation.h"

#include <algorithm>
#include <functional>
#include <memory>

#include "machine/machine.h"
#include "sim/cluster/fault_injector.h"
#include "sim/cluster/register_client.h"
#include "sim/cluster/service_client.h"
#include "sim/cluster/sim_agent.h"
#include "sim/cluster/sim_cluster.h"
#include "sim/cluster/task_client.h"
#include "sim/cluster/watch_client.h"

namespace uccp::sim {
namespace {

constexpr int64_t kChaosLimitUs = 300'000'000;
constexpr int64_t kProgressLimitUs = 120'000'000;
constexpr int64_t kStopLimitMs = 5'000;

class Simulation {
 public:
  Simulation(const SimOptions& options, bool tracing) : cluster_(options, tracing), faults_(cluster_) {
    const auto add = [&]<typename Client>(std::unique_ptr<Client> client) { clients_.push_back(std::move(client)); };
    const uint64_t register_operations = options.operations * 7 / 10 / options.register_clients;
    for (size_t i = 0; i < options.register_clients; ++i) {
      add(std::make_unique<RegisterClient>(cluster_, i, register_operations));
    }
    for (size_t i = 0; i < options.service_clients; ++i) add(std::make_unique<ServiceClient>(cluster_, i));
    const uint64_t task_operations = options.operations / 10 / options.task_clients;
    for (size_t i = 0; i < options.task_clients; ++i) {
      add(std::make_unique<TaskClient>(cluster_, i, task_operations));
    }
    const std::pair<GroupId, std::string_view> topics[] = {
        {kCoreGroup, discovery::kTopic}, {kCoreGroup, kRegisterTopic}, {kWorkGroup, work::kTaskTopic}};
    for (size_t i = 0; i < options.watchers; ++i) {
      const auto& [group, topic] = topics[i % std::size(topics)];
      watchers_.push_back(std::make_unique<WatchClient>(cluster_, i, group, std::string(topic)));
    }
  }

  SimResult run() {
    cluster_.start_node(0);
    cluster_.start_agents();
    for (const auto& client : clients_) client->start();
    for (const auto& watcher : watchers_) watcher->start();
    faults_.start();
    cluster_.scheduler().run_until([this] { return worked() || failed(); }, kChaosLimitUs);
    if (!failed()) {
      cluster_.note("healing");
      cluster_.heal();
      demand_progress();
    }
    if (!failed()) check_at_the_end();
    if (!failed()) check_orderly_restart();
    return result();
  }

 private:
  bool failed() { return !cluster_.checkers().violations.empty(); }
  // Clients that have an end have come to it.
  bool worked() const {
    return std::ranges::all_of(clients_, [](const auto& client) {
      return client->finished() || dynamic_cast<const ServiceClient*>(client.get()) != nullptr;
    });
  }

  void demand_progress() {
    const int64_t limit_us = cluster_.now_us() + kProgressLimitUs;
    const auto demand = [&](const std::string& what, const std::function<bool()>& condition) {
      if (cluster_.scheduler().run_until([&] { return condition() || failed(); }, limit_us)) return;
      cluster_.checkers().violations.add("progress", what);
    };
    demand("a client's operation does not end",
           [&] { return std::ranges::all_of(clients_, [](const auto& client) { return client->finished(); }); });
    std::string open;
    demand("a task does not end", every_ms(100, [&] {
             open = first_active_task();
             return open.empty();
           }));
    if (!open.empty()) cluster_.checkers().violations.add("progress", "it is " + open);
    demand("an instance without heartbeats does not expire",
           every_ms(100, [&] { return discovery::count_services(view(kCoreGroup)).registered == 0; }));
    // Watches deliver behind everything else.
    const int64_t until_us = cluster_.now_us() + 500'000;
    cluster_.scheduler().run_until(until_us);
  }

  // A condition that is costly to ask after every event.
  std::function<bool()> every_ms(int64_t ms, std::function<bool()> condition) {
    return [this, ms, condition = std::move(condition), next_us = int64_t{0}]() mutable {
      if (cluster_.now_us() < next_us) return false;
      next_us = cluster_.now_us() + ms * 1000;
      return cluster_.node(0).ready() && condition();
    };
  }

  machine::GroupView view(GroupId group) { return cluster_.node(0).node().view(group); }

  std::string first_active_task() {
    std::string found;
    work::kActiveTasks.scan(view(kWorkGroup), {"t", "n"}, "", "", [&](std::string_view id, std::string_view) {
      const auto row = work::kTasks.get(view(kWorkGroup), {"t", "n"}, id);
      found = std::string(id) + ", " + (row ? v1::TaskStatus_Name(row->task().status()) : "which has no row") + ": " +
              cluster_.node(0).work().why({"t", "n", std::string(id)});
      return false;
    });
    return found;
  }

  void check_at_the_end() {
    Checkers& checkers = cluster_.checkers();
    checkers.registers.check();
    cluster_.node(0).check_state();
    for (const auto& watcher : watchers_) {
      const auto changes = machine::read_changes(view(watcher->group()), LogIndex(0), SIZE_MAX);
      if (!changes) {
        checkers.violations.add("watch", changes.error().to_string());
        continue;
      }
      std::vector<WatchChecker::Position> all;
      for (const machine::Change& change : *changes) {
        if (change.topic == watcher->topic()) all.emplace_back(change.index, change.sequence);
      }
      checkers.watches.check(watcher->topic(), all, {watcher->subscription()});
    }
    for (const GroupId group : {kCoreGroup, kWorkGroup}) {
      if (Status audit = machine::verify_audit(view(group)); !audit.is_ok()) {
        checkers.violations.add("audit", audit.to_string());
      }
    }
  }

  // After an orderly stop nothing is replayed and nothing is lost; a flipped bit is noticed or harmless.
  void check_orderly_restart() {
    SimNode& node = cluster_.node(0);
    Checkers& checkers = cluster_.checkers();
    std::map<GroupId, Digest> before;
    for (const auto& [group, status] : node.node().status()) before[group] = status.group.digest;
    if (!node.stop(kStopLimitMs)) return checkers.violations.add("stop", "an orderly stop does not come to its end");
    node.crash(CrashKind::kLoseUnsynced);
    const auto stored = node.stored_digests();
    if (!stored) return checkers.violations.add("stop", stored.error().to_string());
    flip_a_bit(node);
    const Status status = node.start({node.id()});
    if (!status.is_ok()) {
      cluster_.note("a flipped bit was noticed: " + status.to_string());
      if (status.code() != Code::kCorruption) checkers.violations.add("bit flip", status.to_string());
      return;
    }
    if (cluster_.scheduler().run_until([&] { return node.ready() || failed(); }, cluster_.now_us() + 5'000'000)) {
      node.check_state();
      return;
    }
    checkers.violations.add("stop", "the node does not become ready after an orderly restart");
  }

  void flip_a_bit(SimNode& node) {
    SeededRandom random(cluster_.next_seed());
    const auto names = node.files().list(node.log_directory());
    if (!names || names->empty() || random.chance(0.5)) return;
    const std::string path = node.log_directory() + "/" + (*names)[random.below(names->size())];
    const auto file = node.files().open(path, OpenMode::kRead);
    const auto size = file ? (*file)->size() : 0;
    if (!size || *size == 0) return;
    node.files().flip_bit(path, random.below(*size), static_cast<int>(random.below(8)));
  }

  SimResult result() {
    SimResult out;
    out.violations = cluster_.checkers().violations.found();
    out.operations = cluster_.operations();
    out.faults = cluster_.faults();
    out.attempts = cluster_.checkers().runs.started_count();
    out.virtual_us = cluster_.now_us();
    out.trace_hash = cluster_.scheduler().trace_hash();
    return out;
  }

  SimCluster cluster_;
  FaultInjector faults_;
  std::vector<std::unique_ptr<SimClient>> clients_;
  std::vector<std::unique_ptr<WatchClient>> watchers_;
};

}  // namespace

SimResult simulate(const SimOptions& options, bool tracing) { return Simulation(options, tracing).run(); }

}  // namespace uccp::sim
