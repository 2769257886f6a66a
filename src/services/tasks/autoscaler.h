// When workers of a group are started, and when they go: a deterministic core, what is known in, decisions out.
//
// No IO, no clock, no randomness. It remembers cool-downs and back-offs only; workers and what waits come with each
// step, so that a new leader decides like the one before. It places what waits in a simulation on a Fleet of its own.
// docs/design/autoscaling.md has the whole.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "services/tasks/fleet.h"

namespace uccp::tasks {

// Labels of workers that were started by the autoscaler.
inline constexpr const char* kScalingGroupLabel = "uccp/scaling-group";
inline constexpr const char* kScalingInstanceLabel = "uccp/scaling-instance";

struct ScalingGroup {
  std::string name;
  WorkerView worker;  // what each of them is: capacity, labels, taints, devices, price, attempts at a time
  double price_per_hour = 0;
  size_t min = 0;
  size_t max = 0;
};

// What is measured against the threshold; kNone: only what waits decides.
enum class ScalingMetric : uint8_t { kNone, kCpu, kMemory, kGpu, kTasks };

struct AutoscalerOptions {
  size_t min_workers = 0;    // of all groups
  size_t max_workers = 100;  // of all groups
  ScalingMetric metric = ScalingMetric::kNone;
  double threshold = 0.8;  // share in use above which another worker is started
  int64_t up_delay_ms = 2'000;
  int64_t down_idle_ms = 60'000;
  int64_t cool_down_ms = 30'000;      // after a start in a group before one of it is drained
  int64_t start_timeout_ms = 60'000;  // for a worker to register
  int64_t backoff_ms = 10'000;        // after a start that failed; doubled with each in a row
  int64_t backoff_ms_max = 600'000;
  size_t starts_a_step = 10;
  size_t drains_a_step = 5;
};

// A worker that is there. Others than those of groups count as room for gangs only.
struct ScalingWorker {
  WorkerView view;
  Shape used;
  size_t running = 0;
  std::string group, instance;  // empty: of none
  bool draining = false;
  bool silent = false;  // its agent is not connected; `busy` says whether something may run there all the same
  bool busy = false;
  bool lost = false;    // fenced: nothing of it counts any more
  int64_t idle_ms = 0;  // for so long nothing has run there
};

// What a provisioner has: a worker to be, or the process of one that is there.
struct ScalingInstance {
  std::string id, group;
  bool alive = false;
  bool stopping = false;
  bool registered = false;  // a worker was made of it
  int64_t age_ms = 0;       // since it was started last
};

// Tasks of equal demand that fit nowhere now.
struct ScalingDemand {
  uint64_t key = 0;  // of whoever asks
  Demand demand;
  size_t count = 0;
  int64_t waited_ms = 0;
};

// Tasks that start together or not at all.
struct ScalingGang {
  uint64_t key = 0;
  std::vector<Demand> members;
  int64_t waited_ms = 0;
};

struct ScalingInput {
  int64_t now_ms = 0;
  std::vector<ScalingWorker> workers;
  std::vector<ScalingInstance> instances;
  std::vector<ScalingDemand> demand;
  std::vector<ScalingGang> gangs;
};

struct ScalingDecision {
  enum class Kind : uint8_t {
    kStart,    // a new worker of the group
    kRestart,  // the agent of an instance again
    kDrain,    // a worker
    kRemove,   // a worker that runs nothing and is drained or lost, from the registry
    kStop,     // an instance of which no worker is left
    kGiveUp,   // an instance that never became a worker
  };
  Kind kind = Kind::kStart;
  std::string group;
  std::string instance;    // empty for kStart
  std::string worker;      // of kDrain and kRemove
  const char* cause = "";  // one of a few words, for metrics
  std::string reason;
};
std::string_view name_of(ScalingDecision::Kind kind);

struct GroupCounts {
  size_t wanted = 0, starting = 0, ready = 0, draining = 0;
};

struct ScalingOutput {
  std::vector<ScalingDecision> decisions;
  std::map<std::string, GroupCounts> counts;  // each group is there
  std::map<uint64_t, std::string> notes;      // what is done for a class or gang, or why nothing is; by key
};

// What is remembered of a group from step to step.
struct ScalingMemory {
  int64_t started_ms = -1;  // last start
  int64_t paused_until_ms = 0;
  int failures = 0;           // of starts, in a row
  std::set<std::string> met;  // instances that have registered
  std::optional<Shape> real;  // what the worker that registered last has, which may be less than was expected
};

class Autoscaler {
 public:
  // Names of groups differ.
  Autoscaler(AutoscalerOptions options, std::vector<ScalingGroup> groups);

  ScalingOutput step(const ScalingInput& input);
  // A start did not even begin.
  void start_failed(const std::string& group, int64_t now_ms);

 private:
  void look_at_starts(const ScalingInput& input, ScalingOutput& out);
  void tend(const ScalingInput& input, ScalingOutput& out) const;

  const AutoscalerOptions options_;
  std::vector<ScalingGroup> groups_;  // the cheapest first
  std::map<std::string, ScalingMemory> states_;
};

}  // namespace uccp::tasks
