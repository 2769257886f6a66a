// Hurts nodes, network and workers at random moments, and gives orders to operators: the faults that the options name.
#pragma once

#include <functional>

#include "base/random.h"
#include "sim/cluster/ambush.h"
#include "sim/cluster/sim_cluster.h"

namespace uccp::sim {

class FaultInjector {
 public:
  explicit FaultInjector(SimCluster& cluster);

  void start();

 private:
  void next();
  // At any place. False if it had no effect: there was nothing to hurt.
  bool inject(Fault fault);
  bool inject(Fault fault, size_t place);
  void count(Fault fault, bool had_effect);
  bool hurt_process(Fault fault, size_t place);
  bool hurt_clock(Fault fault, size_t place);
  bool hurt_disk(Fault fault, size_t place);
  bool lose_data(Fault fault, size_t place);
  bool hurt_network(Fault fault, size_t place);
  bool order(Fault fault);
  bool hurt_agent(Fault fault);
  // Cuts the directions for a while; connections may break at it or not.
  void cut(std::vector<std::pair<NodeId, NodeId>> directions, NodeId reset);
  std::vector<NodeId> others(size_t place) const;
  int64_t below(int64_t bound) { return static_cast<int64_t>(random_.below(static_cast<uint64_t>(bound))); }
  // Mostly short; sometimes longer than every lease and timeout.
  int64_t some_ms() { return below(10) == 0 ? below(4000) : 5 + below(300); }
  int64_t drift_ppm();
  // Runs unless the cluster was healed meanwhile.
  void after_ms(int64_t ms, std::function<void()> work);

  SimCluster& cluster_;
  SeededRandom random_;
  Ambush ambush_;
};

}  // namespace uccp::sim
