// One step of the autoscaler: what waits is placed in a simulation, and what that asks for is decided.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "services/tasks/autoscaler.h"

namespace uccp::tasks {

class ScalingRound {
 public:
  ScalingRound(const AutoscalerOptions& options, const std::vector<ScalingGroup>& groups,
               std::map<std::string, ScalingMemory>& memory, const ScalingInput& input, ScalingOutput& out);
  void run();

 private:
  enum class Room : uint8_t { kPresent, kComing, kNew };
  // A worker of the simulation.
  struct Place {
    Room room = Room::kPresent;
    size_t worker = 0;  // of the input, if it is present
    std::string group;
    size_t placed = 0;
  };
  struct Tally {
    size_t all = 0;      // workers that exist or are on their way, those that go included
    size_t staying = 0;  // without those
    size_t coming = 0;
    size_t ready = 0;
  };
  // Why one demand got no new worker, in the words of the last group that was asked.
  struct Refusal {
    bool fits_a_group = false;
    std::string why;
  };

  void set_up();
  void place_demand();
  void place_class(const ScalingDemand& demand);
  void place_gang(const ScalingGang& gang);
  WorkerSlot find(Fleet::Asked& asked, const std::vector<WorkerSlot>* avoided);
  WorkerSlot add_new(Fleet::Asked& asked, size_t count, Refusal& refusal);
  bool may_start(const ScalingGroup& group, Refusal& refusal) const;
  WorkerSlot add_place(WorkerView view, Place place);
  void start(const ScalingGroup& group, const char* cause, std::string reason);
  void keep_minimum();
  void keep_headroom();
  void scale_down();
  bool may_drain(const ScalingWorker& worker) const;
  double share_in_use(const ScalingWorker* without) const;
  double weight(const Shape& shape) const;
  WorkerView template_of(const ScalingGroup& group) const;
  void note(uint64_t key, const Place& place);

  const AutoscalerOptions& options_;
  const std::vector<ScalingGroup>& groups_;
  std::map<std::string, ScalingMemory>& memory_;
  const ScalingInput& input_;
  ScalingOutput& out_;
  Fleet fleet_;
  std::map<WorkerSlot, Place> places_;
  std::map<std::string, Tally> tallies_;
  size_t all_ = 0;
  size_t starts_ = 0;
  size_t next_new_ = 0;
};

}  // namespace uccp::tasks
