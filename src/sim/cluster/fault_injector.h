// Hurts nodes and workers at random moments, with the faults that the options name.
#pragma once

#include "base/random.h"
#include "sim/cluster/sim_cluster.h"

namespace uccp::sim {

class FaultInjector {
 public:
  explicit FaultInjector(SimCluster& cluster);

  void start();

 private:
  void next();
  void inject(Fault fault);
  void hurt_node(Fault fault, size_t number);
  void hurt_disk(Fault fault, size_t number);
  void hurt_agent(Fault fault);
  int64_t below(int64_t bound) { return static_cast<int64_t>(random_.below(static_cast<uint64_t>(bound))); }
  // Runs unless the cluster was healed meanwhile.
  void after_ms(int64_t ms, std::function<void()> work);

  SimCluster& cluster_;
  SeededRandom random_;
};

}  // namespace uccp::sim
