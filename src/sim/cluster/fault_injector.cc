#include "sim/cluster/fault_injector.h"

#include <utility>

#include "sim/cluster/sim_agent.h"
#include "sim/cluster/sim_operator.h"

namespace uccp::sim {

FaultInjector::FaultInjector(SimCluster& cluster)
    : cluster_(cluster), random_(cluster.next_seed()), ambush_(cluster, [this](Fault fault, NodeId victim) {
        const size_t place = cluster_.place_of(victim);
        if (place < cluster_.places()) count(fault, inject(fault, place));
      }) {}

void FaultInjector::start() {
  if (!cluster_.options().faults.empty()) next();
}

void FaultInjector::after_ms(int64_t ms, std::function<void()> work) {
  cluster_.scheduler().schedule_after(ms * 1000, [this, work = std::move(work)] {
    if (!cluster_.healed()) work();
  });
}

void FaultInjector::next() {
  after_ms(1 + below(2 * cluster_.options().fault_interval_ms), [this] {
    const auto& faults = cluster_.options().faults;
    const Fault fault = faults[random_.below(faults.size())];
    count(fault, inject(fault));
    next();
  });
}

void FaultInjector::count(Fault fault, bool had_effect) {
  if (!had_effect) return;
  cluster_.count_fault(fault);
  if (cluster_.tracing()) cluster_.note("fault " + std::string(fault_name(fault)));
}

bool FaultInjector::inject(Fault fault) { return inject(fault, cluster_.any_place(random_)); }

bool FaultInjector::inject(Fault fault, size_t place) {
  const bool up = cluster_.running(place) && !cluster_.node(place).paused();
  switch (fault) {
    case Fault::kCrash:
    case Fault::kKill:
    case Fault::kPause: return up && hurt_process(fault, place);
    case Fault::kClockDrift:
    case Fault::kWallStep: return up && hurt_clock(fault, place);
    case Fault::kSyncError:
    case Fault::kDiskFull:
    case Fault::kDiskNearlyFull:
    case Fault::kSlowDisk:
    case Fault::kCrashInWrite: return up && hurt_disk(fault, place);
    case Fault::kWipe:
    case Fault::kBitFlip: return up && lose_data(fault, place);
    case Fault::kIsolate:
    case Fault::kOneWay:
    case Fault::kHalfDeaf:
    case Fault::kSplit:
    case Fault::kClog:
    case Fault::kSlowLink:
    case Fault::kLinkReset: return hurt_network(fault, place);
    case Fault::kTransfer:
    case Fault::kGrow:
    case Fault::kShrink:
    case Fault::kReplace:
    case Fault::kLearner:
    case Fault::kRollingRestart:
    case Fault::kUpgrade: return order(fault);
    case Fault::kAmbush: return ambush_.begin();
    case Fault::kAgentKill:
    case Fault::kAgentDisconnect:
    case Fault::kAgentPartition: return hurt_agent(fault);
    default: return false;
  }
}

bool FaultInjector::hurt_process(Fault fault, size_t place) {
  const int64_t ms = some_ms();
  SimNode& node = cluster_.node(place);
  switch (fault) {
    case Fault::kCrash:
      cluster_.crash_node(place, below(2) == 0 ? CrashKind::kLoseUnsynced : CrashKind::kTearUnsynced, ms);
      return true;
    case Fault::kKill: cluster_.crash_node(place, CrashKind::kKeepAll, ms); return true;
    default:
      node.pause();
      cluster_.scheduler().schedule_after(ms * 1000, [&node] { node.resume(); });
      return true;
  }
}

int64_t FaultInjector::drift_ppm() {
  const int64_t most = cluster_.options().drift_ppm_max;
  // The extremes are where a bound is missed.
  if (below(3) == 0) return below(2) == 0 ? most - 1 : -most + 1;
  return below(2 * most) - most;
}

bool FaultInjector::hurt_clock(Fault fault, size_t place) {
  SimClock& clock = cluster_.node(place).clock();
  if (fault == Fault::kClockDrift) clock.set_drift_ppm(drift_ppm());
  else clock.set_wall({clock.wall().us + below(7'200'000'000) - 3'600'000'000});
  return true;
}

bool FaultInjector::hurt_disk(Fault fault, size_t place) {
  SimNode& node = cluster_.node(place);
  SimFileSystem& files = node.files();
  switch (fault) {
    case Fault::kSyncError: files.fail_next_sync(); return true;
    case Fault::kDiskFull:
    case Fault::kDiskNearlyFull: {
      const int64_t room = fault == Fault::kDiskFull ? below(4096) : 20'000 + below(40'000);
      files.set_capacity(files.used_bytes() + static_cast<uint64_t>(room));
      after_ms(100 + below(2000), [&files] { files.set_capacity(0); });
      return true;
    }
    case Fault::kSlowDisk:
      node.set_disk_us(5'000 + below(300'000));
      after_ms(below(1000), [this, &node] { node.set_disk_us(cluster_.options().disk_us); });
      return true;
    default:
      files.fail_after(random_.below(10));
      after_ms(20 + below(100), [this, id = node.id()] {
        const size_t place = cluster_.place_of(id);
        if (place < cluster_.places() && cluster_.node(place).files().has_failed()) {
          cluster_.crash_node(place, CrashKind::kTearUnsynced, 5 + below(200));
        }
      });
      return true;
  }
}

bool FaultInjector::lose_data(Fault fault, size_t place) {
  if (!cluster_.op().may_lose(place)) return false;
  if (fault == Fault::kBitFlip) {
    cluster_.damage_log(place, some_ms());
    return true;
  }
  const NodeId old = cluster_.node(place).id();
  cluster_.op().lost(old, cluster_.wipe_machine(place));
  return true;
}

std::vector<NodeId> FaultInjector::others(size_t place) const {
  std::vector<NodeId> all;
  for (size_t i = 0; i < cluster_.places(); ++i) {
    if (i != place && cluster_.has_node(i)) all.push_back(cluster_.node(i).id());
  }
  return all;
}

void FaultInjector::cut(std::vector<std::pair<NodeId, NodeId>> directions, NodeId reset) {
  SimNetwork& network = cluster_.network();
  for (const auto& [from, to] : directions) network.cut(from, to);
  if (below(3) == 0) network.reset(reset);
  after_ms(below(5) == 0 ? below(5000) : 50 + below(1500), [&network, directions = std::move(directions)] {
    for (const auto& [from, to] : directions) network.mend(from, to);
  });
}

bool FaultInjector::hurt_network(Fault fault, size_t place) {
  const NodeId node = cluster_.node(place).id();
  const std::vector<NodeId> others = this->others(place);
  if (others.empty()) return false;
  const NodeId other = others[random_.below(others.size())];
  SimNetwork& network = cluster_.network();
  std::vector<std::pair<NodeId, NodeId>> directions;
  switch (fault) {
    case Fault::kOneWay: directions.emplace_back(node, other); break;
    case Fault::kHalfDeaf:
      for (const NodeId id : others) directions.emplace_back(id, node);
      break;
    case Fault::kIsolate:
    case Fault::kSplit: {
      std::vector<NodeId> here{node}, there;
      for (const NodeId id : others) (fault == Fault::kSplit && below(2) == 0 ? here : there).push_back(id);
      for (const NodeId a : here) {
        for (const NodeId b : there) directions.insert(directions.end(), {{a, b}, {b, a}});
      }
      break;
    }
    case Fault::kClog: network.clog(node, other, cluster_.now_us() + 1000 * some_ms()); return true;
    case Fault::kSlowLink:
      network.slow(node, other, 1000 + below(below(4) == 0 ? 500'000 : 50'000));
      after_ms(below(2000), [&network, node, other] { network.slow(node, other, 0); });
      return true;
    default: network.reset(node); return true;
  }
  cut(std::move(directions), node);
  return true;
}

bool FaultInjector::order(Fault fault) {
  SimOperator& op = cluster_.op();
  switch (fault) {
    case Fault::kTransfer: return op.transfer();
    case Fault::kGrow: return op.grow();
    case Fault::kShrink: return op.shrink();
    case Fault::kReplace: return op.replace();
    case Fault::kLearner: return op.add_learner();
    case Fault::kUpgrade: return op.upgrade();
    default: return op.rolling_restart();
  }
}

bool FaultInjector::hurt_agent(Fault fault) {
  SimAgent& agent = cluster_.agent(random_.below(cluster_.agent_count()));
  const int64_t lease_ms = cluster_.options().agent_lease_ms;
  switch (fault) {
    case Fault::kAgentKill: agent.kill(10 + below(below(4) == 0 ? 3 * lease_ms : 300)); return true;
    case Fault::kAgentDisconnect: agent.disconnect(); return true;
    default:
      // Around the length of the lease it matters most.
      agent.partition(below(3) == 0 ? lease_ms + below(lease_ms) : below(lease_ms));
      agent.clock().set_drift_ppm(drift_ppm());
      return true;
  }
}

}  // namespace uccp::sim
