#include "sim/cluster/fault_injector.h"

#include "sim/cluster/sim_agent.h"

namespace uccp::sim {

FaultInjector::FaultInjector(SimCluster& cluster) : cluster_(cluster), random_(cluster.next_seed()) {}

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
    inject(faults[random_.below(faults.size())]);
    next();
  });
}

void FaultInjector::inject(Fault fault) {
  const size_t number = random_.below(cluster_.node_count());
  switch (fault) {
    case Fault::kAgentKill:
    case Fault::kAgentDisconnect:
    case Fault::kAgentPartition: return hurt_agent(fault);
    default: break;
  }
  if (!cluster_.node(number).running() || cluster_.node(number).paused()) return;
  if (cluster_.tracing()) cluster_.note("fault " + fault_name(fault));
  cluster_.count_fault(fault);
  switch (fault) {
    case Fault::kSyncError:
    case Fault::kDiskFull:
    case Fault::kDiskNearlyFull:
    case Fault::kSlowDisk:
    case Fault::kCrashInWrite: return hurt_disk(fault, number);
    default: return hurt_node(fault, number);
  }
}

void FaultInjector::hurt_node(Fault fault, size_t number) {
  SimNode& node = cluster_.node(number);
  // Mostly short; sometimes longer than every lease.
  const int64_t down_ms = below(10) == 0 ? below(4000) : 5 + below(300);
  switch (fault) {
    case Fault::kCrash:
      return cluster_.crash_node(number, below(2) == 0 ? CrashKind::kLoseUnsynced : CrashKind::kTearUnsynced, down_ms);
    case Fault::kKill: return cluster_.crash_node(number, CrashKind::kKeepAll, down_ms);
    case Fault::kPause:
      node.pause();
      return cluster_.scheduler().schedule_after(down_ms * 1000, [&node] { node.resume(); }), void();
    case Fault::kClockDrift:
      return node.clock().set_drift_ppm(below(2 * cluster_.options().drift_ppm_max) - cluster_.options().drift_ppm_max);
    case Fault::kWallStep:
      return node.clock().set_wall({node.clock().wall().us + below(7'200'000'000) - 3'600'000'000});
    default: return;
  }
}

void FaultInjector::hurt_disk(Fault fault, size_t number) {
  SimNode& node = cluster_.node(number);
  SimFileSystem& files = node.files();
  switch (fault) {
    case Fault::kSyncError: return files.fail_next_sync();
    case Fault::kDiskFull:
    case Fault::kDiskNearlyFull: {
      const int64_t room = fault == Fault::kDiskFull ? below(4096) : 20'000 + below(40'000);
      files.set_capacity(files.used_bytes() + static_cast<uint64_t>(room));
      return after_ms(100 + below(2000), [&files] { files.set_capacity(0); });
    }
    case Fault::kSlowDisk:
      node.set_disk_us(5'000 + below(300'000));
      return after_ms(below(1000), [this, &node] { node.set_disk_us(cluster_.options().disk_us); });
    case Fault::kCrashInWrite:
      files.fail_after(random_.below(10));
      return after_ms(20 + below(100), [this, number] {
        if (cluster_.node(number).files().has_failed())
          cluster_.crash_node(number, CrashKind::kTearUnsynced, 5 + below(200));
      });
    default: return;
  }
}

void FaultInjector::hurt_agent(Fault fault) {
  SimAgent& agent = cluster_.agent(random_.below(cluster_.agent_count()));
  cluster_.count_fault(fault);
  const int64_t lease_ms = cluster_.options().agent_lease_ms;
  switch (fault) {
    case Fault::kAgentKill: return agent.kill(10 + below(below(4) == 0 ? 3 * lease_ms : 300));
    case Fault::kAgentDisconnect: return agent.disconnect();
    case Fault::kAgentPartition:
      // Around the length of the lease it matters most.
      agent.partition(below(3) == 0 ? lease_ms + below(lease_ms) : below(lease_ms));
      return agent.clock().set_drift_ppm(below(2 * cluster_.options().drift_ppm_max) -
                                         cluster_.options().drift_ppm_max);
    default: return;
  }
}

}  // namespace uccp::sim
