#include "sim/cluster/simulation.h"

#include <algorithm>
#include <functional>
#include <memory>

#include "machine/machine.h"
#include "services/events/bus_rows.h"
#include "sim/cluster/election_client.h"
#include "sim/cluster/event_client.h"
#include "sim/cluster/event_reader.h"
#include "sim/cluster/fault_injector.h"
#include "sim/cluster/kv_client.h"
#include "sim/cluster/kv_watch_client.h"
#include "sim/cluster/lock_client.h"
#include "sim/cluster/register_client.h"
#include "sim/cluster/service_client.h"
#include "sim/cluster/sim_agent.h"
#include "sim/cluster/sim_cluster.h"
#include "sim/cluster/sim_operator.h"
#include "sim/cluster/subscription_client.h"
#include "sim/cluster/task_client.h"
#include "sim/cluster/transaction_client.h"
#include "sim/cluster/watch_client.h"

namespace uccp::sim {
namespace {

constexpr int64_t kChaosLimitUs = 300'000'000;
constexpr int64_t kProgressLimitUs = 120'000'000;
constexpr int64_t kStopLimitUs = 5'000'000;
constexpr int64_t kReadyLimitUs = 5'000'000;
// Many times what a run needs: a loop in which hardly any time passes would never come to a limit of time.
constexpr uint64_t kEventsMax = 500'000;
constexpr uint64_t kEventsOfOperationMax = 200;
constexpr uint64_t kSentBytesMax = 100'000'000;
constexpr uint64_t kSentBytesOfOperationMax = 10'000;

class Simulation {
 public:
  Simulation(const SimOptions& options, bool tracing)
      : cluster_(options, tracing), faults_(cluster_), groups_(groups_of(options)) {
    const auto add = [&]<typename Client>(size_t count, uint64_t operations) {
      for (size_t i = 0; i < count; ++i) {
        auto client = std::make_unique<Client>(cluster_, i, std::max<uint64_t>(1, operations / count));
        ending_.push_back(client.get());
        clients_.push_back(std::move(client));
      }
    };
    const uint64_t all = options.operations;
    add.operator()<RegisterClient>(options.register_clients, all * 11 / 20);
    add.operator()<KvClient>(options.kv_clients, all / 5);
    add.operator()<LockClient>(options.lock_clients, all / 40);
    add.operator()<ElectionClient>(options.election_clients, all / 100);
    add.operator()<TaskClient>(options.task_clients, all / 20);
    add.operator()<EventClient>(options.event_clients, all / 4);
    for (size_t i = 0; i < options.transaction_clients; ++i) {
      clients_.push_back(std::make_unique<TransactionClient>(cluster_, i));
    }
    for (size_t i = 0; i < options.event_readers; ++i) {
      event_readers_.push_back(std::make_unique<EventReader>(cluster_, i));
      members_.push_back(std::make_unique<SubscriptionClient>(cluster_, i));
    }
    for (size_t i = 0; i < options.register_readers; ++i) {
      clients_.push_back(std::make_unique<RegisterClient>(cluster_, options.register_clients + i, 0));
    }
    for (size_t i = 0; i < options.service_clients; ++i) {
      clients_.push_back(std::make_unique<ServiceClient>(cluster_, i));
    }
    const std::pair<GroupId, std::string_view> topics[] = {{kCoreGroup, discovery::kTopic},
                                                           {kCoreGroup, locks::kTopic},
                                                           {kCoreGroup, elections::kTopic},
                                                           {kWorkGroup, work::kTaskTopic},
                                                           {kCoreGroup, kRegisterTopic}};
    for (size_t i = 0; i < 2; ++i) kv_watchers_.push_back(std::make_unique<KvWatchClient>(cluster_, i));
    for (size_t i = 0; i < options.watchers; ++i) {
      const auto& [group, topic] = topics[i % std::size(topics)];
      watchers_.push_back(std::make_unique<WatchClient>(cluster_, i, group, std::string(topic)));
    }
  }

  SimResult run() {
    cluster_.start();
    for (const auto& client : clients_) client->start();
    for (const auto& watcher : watchers_) watcher->start();
    for (const auto& watcher : kv_watchers_) watcher->start();
    for (const auto& reader : event_readers_) reader->start();
    for (const auto& member : members_) member->start();
    faults_.start();
    cluster_.scheduler().run_until([this] { return failed() || worked(); }, kChaosLimitUs);
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
  bool failed() {
    Violations& violations = cluster_.checkers().violations;
    const uint64_t operations = cluster_.options().operations;
    const uint64_t events = cluster_.scheduler().events();
    const uint64_t sent_bytes = cluster_.network().sent_bytes();
    const bool too_much = events > kEventsMax + kEventsOfOperationMax * operations ||
                          sent_bytes > kSentBytesMax + kSentBytesOfOperationMax * operations;
    if (too_much && violations.empty()) {
      violations.add("progress", "too much happens: " + std::to_string(events) + " events, and nodes send each other " +
                                     std::to_string(sent_bytes) + " bytes" +
                                     (awaited_.empty() ? "" : "; awaited: " + awaited_));
    }
    return !violations.empty();
  }
  // Clients that have an end have come to it.
  bool worked() {
    while (!ending_.empty() && ending_.back()->finished()) ending_.pop_back();
    return ending_.empty();
  }

  void demand_progress() {
    const int64_t limit_us = cluster_.now_us() + kProgressLimitUs;
    const auto demand = [&](const std::string& what, const std::function<bool()>& condition) {
      awaited_ = what;
      if (failed() || cluster_.scheduler().run_until([&] { return failed() || condition(); }, limit_us)) return;
      cluster_.checkers().violations.add("progress", what + "; " + describe());
    };
    demand("the membership is not what was ordered", every_ms(20, [&] { return cluster_.op().settled(); }));
    demand("a rolling restart does not end", [&] { return !cluster_.op().restarting(); });
    demand("a healed node does not serve", every_ms(20, [&] { return all_serve(); }));
    demand("a client's operation does not end",
           [&] { return std::ranges::all_of(clients_, [](const auto& client) { return client->finished(); }); });
    demand("a task does not end", every_ms(50, [&] { return !has_active_task(); }));
    if (has_active_task()) cluster_.checkers().violations.add("progress", "open: " + active_tasks());
    demand("an instance without heartbeats does not expire",
           every_ms(50, [&] { return discovery::count_services(view(kCoreGroup)).registered == 0; }));
    if (!event_readers_.empty()) {
      demand("an event is not delivered to a subscription", every_ms(100, [&] { return all_delivered(); }));
      demand("an event is not processed in a transaction", every_ms(100, [&] { return all_processed(); }));
      demand("an event outlives its retention", every_ms(100, [&] { return !keeps_old_events(); }));
      demand("a topic is not compacted", every_ms(100, [&] { return all_compacted(); }));
    }
    for (const auto& watcher : watchers_) {
      if (!failed()) watcher->move_to(cluster_.leader(watcher->group()));
    }
    for (const auto& watcher : kv_watchers_) {
      if (!failed()) watcher->move_to(cluster_.leader(kCoreGroup));
    }
    std::map<GroupId, LogIndex> targets;
    for (const GroupId group : groups_) targets[group] = view(group).applied();
    demand("a member lacks what the others have", every_ms(20, [&] { return all_have(targets); }));
    for (const auto& reader : event_readers_) {
      if (!failed()) reader->read_all(cluster_.leader(kCoreGroup));
    }
    // Watches and streams deliver behind everything else.
    cluster_.scheduler().run_until(cluster_.now_us() + 500'000);
  }

  std::string describe() {
    std::string out = "members";
    for (const NodeId id : cluster_.op().members()) {
      const size_t place = cluster_.place_of(id);
      out += " " + std::to_string(id.value);
      if (place == cluster_.places() || !cluster_.running(place)) {
        out += " (down)";
        continue;
      }
      for (const auto& [group, status] : cluster_.node(place).node().status()) {
        out += " [" + status.name + " " + raft::role_name(status.group.role) + " leader " +
               std::to_string(status.group.leader.value) + " term " + std::to_string(status.group.term.value) +
               " applied " + std::to_string(status.group.applied.value) + " commit " +
               std::to_string(status.group.commit.value) + " last " + std::to_string(status.group.last.value) + " " +
               raft::to_string(status.group.membership) + "]";
      }
    }
    return out;
  }

  // A condition that is costly to ask after every event. It finds a leader of each group.
  std::function<bool()> every_ms(int64_t ms, std::function<bool()> condition) {
    return [this, ms, condition = std::move(condition), next_us = int64_t{0}]() mutable {
      if (cluster_.now_us() < next_us) return false;
      next_us = cluster_.now_us() + ms * 1000;
      const bool led =
          std::ranges::all_of(groups_, [&](GroupId group) { return cluster_.leader(group) < cluster_.places(); });
      return led && condition();
    };
  }
  bool for_all_members(const std::function<bool(SimNode&)>& condition) {
    return std::ranges::all_of(cluster_.op().members(), [&](NodeId id) {
      const size_t place = cluster_.place_of(id);
      return place < cluster_.places() && cluster_.running(place) && condition(cluster_.node(place));
    });
  }
  bool all_serve() {
    return for_all_members([](SimNode& node) { return node.ready(); });
  }
  bool all_have(const std::map<GroupId, LogIndex>& targets) {
    return for_all_members([&](SimNode& node) {
      return std::ranges::all_of(
          targets, [&](const auto& target) { return node.node().view(target.first).applied() >= target.second; });
    });
  }

  // The leader's.
  machine::GroupView view(GroupId group) {
    const size_t place = cluster_.leader(group);
    return place < cluster_.places() ? cluster_.node(place).node().view(group) : machine::GroupView();
  }

  bool all_delivered() {
    const Checkers& checkers = cluster_.checkers();
    return std::ranges::all_of(checkers.events.all_acknowledged(), [&](const auto& event) {
      return checkers.subscriptions.was_delivered(event.first, event.second);
    });
  }

  bool all_processed() {
    const Checkers& checkers = cluster_.checkers();
    return cluster_.options().transaction_clients == 0 ||
           std::ranges::all_of(checkers.events.all_acknowledged(), [&](const auto& event) {
             return checkers.transactions.processed(event.first, event.second);
           });
  }

  // Of the topic that keeps them for a while, when nothing is published any more.
  bool keeps_old_events() {
    bool keeps = false;
    for (uint32_t number = 0; number < cluster_.options().bus_groups; ++number) {
      events::kPartitions.scan_all(view(events::bus_group(number)),
                                   [&](const machine::Scope&, std::string_view, const auto& row) {
                                     const bool shortly = row.settings().retention_events() == kSimShortTopicEvents;
                                     keeps |= shortly && row.first_offset() < row.next_offset();
                                     return !keeps;
                                   });
    }
    return keeps;
  }

  // But for the newest batch of each partition.
  bool all_compacted() {
    return std::ranges::all_of(
        groups_, [this](GroupId group) { return !events::is_bus_group(group) || is_compacted(view(group)); });
  }
  bool is_compacted(const machine::GroupView& bus) {
    bool all = true;
    // Nodes of before do not know how.
    if (events::log_bytes_ever(bus) == 0) return true;
    events::kPartitions.scan_all(bus, [&](const machine::Scope& scope, std::string_view key, const auto& row) {
      if (!row.settings().compacted() || row.next_offset() == 0) return true;
      const auto newest = events::find_index(bus, scope, events::decode_partition_key(key), row.next_offset() - 1);
      all = newest && newest->row.first_offset() <= row.compacted_offset();
      return all;
    });
    return all;
  }

  // A few tasks that have not ended, each with why.
  std::string active_tasks() {
    constexpr int kShown = 4;
    std::string found;
    int shown = 0;
    const size_t leader = cluster_.leader(kWorkGroup);
    work::kActiveTasks.scan(view(kWorkGroup), {"t", "n"}, "", "", [&](std::string_view id, std::string_view) {
      const auto row = work::kTasks.get(view(kWorkGroup), {"t", "n"}, id);
      // What waits for others is not what they wait for.
      if (row && row->task().status() == v1::TASK_STATUS_PENDING) return true;
      found += (shown == 0 ? "" : "; ") + std::string(id) + ", " +
               (row ? v1::TaskStatus_Name(row->task().status()) : "which has no row") + ": " +
               cluster_.node(leader).work().why({"t", "n", std::string(id)});
      return ++shown < kShown;
    });
    return found;
  }

  bool has_active_task() {
    bool any = false;
    work::kActiveTasks.scan(view(kWorkGroup), {"t", "n"}, "", "", [&](std::string_view, std::string_view) {
      any = true;
      return false;
    });
    return any;
  }

  void check_at_the_end() {
    Checkers& checkers = cluster_.checkers();
    checkers.registers.check();
    checkers.order.check();
    checkers.kv_order.check();
    std::vector<size_t> caught_up;
    for (const auto& watcher : kv_watchers_) caught_up.push_back(watcher->subscription());
    checkers.kv.check_watches(caught_up);
    for (const auto& reader : event_readers_) checkers.events.check_complete(reader->stream());
    checkers.events.check_order();
    checkers.events.check_compaction();
    checkers.transactions.check();
    for_all_members([](SimNode& node) {
      node.check_digests();
      return true;
    });
    for (const GroupId group : groups_) {
      const machine::GroupView now = view(group);
      cluster_.check_acknowledged(group, now);
      check_watches(group, now);
      if (Status audit = machine::verify_audit(now); !audit.is_ok()) {
        checkers.violations.add("audit", audit.to_string());
      }
    }
  }

  void check_watches(GroupId group, const machine::GroupView& now) {
    Checkers& checkers = cluster_.checkers();
    const auto changes = machine::read_changes(now, LogIndex(0), SIZE_MAX);
    if (!changes) return checkers.violations.add("watch", changes.error().to_string());
    for (const auto& watcher : watchers_) {
      if (watcher->group() != group) continue;
      std::vector<WatchChecker::Position> all;
      for (const machine::Change& change : *changes) {
        if (change.topic == watcher->topic()) all.emplace_back(change.index, change.sequence);
      }
      checkers.watches.check(watcher->topic(), all, {watcher->subscription()});
    }
  }

  // After an orderly stop nothing is replayed and nothing is lost, and the state is what its digest says.
  void check_orderly_restart() {
    Checkers& checkers = cluster_.checkers();
    SeededRandom random(cluster_.next_seed());
    const size_t place = cluster_.any_place(random);
    SimNode& node = cluster_.node(place);
    std::optional<bool> closed;
    node.stop([&](bool result) { closed = result; });
    cluster_.scheduler().run_until([&] { return closed.has_value(); }, cluster_.now_us() + kStopLimitUs);
    if (closed != true) return checkers.violations.add("stop", "an orderly stop does not come to its end");
    cluster_.crash_node(place, CrashKind::kLoseUnsynced, 1000);
    node.check_state();
    const bool back =
        cluster_.scheduler().run_until([&] { return node.ready() || failed(); }, cluster_.now_us() + kReadyLimitUs);
    if (!back) return checkers.violations.add("stop", "the node does not become ready after an orderly restart");
    if (!failed()) node.check_digests();
  }

  SimResult result() {
    SimResult out;
    out.violations = cluster_.checkers().violations.found();
    out.nodes = cluster_.options().nodes;
    out.operations = cluster_.operations();
    out.faults = cluster_.faults();
    out.attempts = cluster_.checkers().runs.started_count();
    out.elections = cluster_.checkers().leaders.count();
    out.events = cluster_.scheduler().events();
    out.undecided = cluster_.checkers().registers.undecided();
    out.virtual_us = cluster_.now_us();
    out.trace_hash = cluster_.scheduler().trace_hash();
    return out;
  }

  SimCluster cluster_;
  std::string awaited_;  // what is demanded now that nothing fails any more
  FaultInjector faults_;
  std::vector<std::unique_ptr<SimClient>> clients_;
  std::vector<SimClient*> ending_;  // that have an end and are not known to have come to it
  std::vector<std::unique_ptr<WatchClient>> watchers_;
  std::vector<std::unique_ptr<KvWatchClient>> kv_watchers_;
  std::vector<std::unique_ptr<EventReader>> event_readers_;
  std::vector<std::unique_ptr<SubscriptionClient>> members_;
  const std::vector<GroupId> groups_;
};

}  // namespace

SimResult simulate(const SimOptions& options, bool tracing) { return Simulation(options, tracing).run(); }

}  // namespace uccp::sim
