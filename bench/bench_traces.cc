// Workloads of batch machines, replayed in virtual time: the scheduler beside FCFS, EASY and conservative backfilling.
#include <fmt/format.h>

#include <array>

#include "bench/bench.h"
#include "sim/scheduling/trace_replay.h"

namespace uccp::bench {
namespace {

using sim::Policy;
using sim::ReplayResult;

constexpr std::array kPolicies = {Policy::kScheduler, Policy::kFcfs, Policy::kEasy, Policy::kConservative};
constexpr std::array kLoads = {0.7, 0.8, 0.9};
constexpr sim::TraceMachine kMachine{.nodes = 16, .processors = 16};

// One measure of all policies at one load. EASY is the peer, being what most batch systems do.
struct Measure {
  const char* name;
  const char* unit;
  Better better;
  double ReplayResult::* value;
};
constexpr std::array<Measure, 4> kMeasures = {{{"utilisation", "", Better::kHigher, &ReplayResult::utilisation},
                                               {"mean wait", "s", Better::kLower, &ReplayResult::wait_mean_s},
                                               {"bounded slowdown", "", Better::kLower, &ReplayResult::slowdown_mean},
                                               {"Jain index", "", Better::kHigher, &ReplayResult::fairness}}};

void emit_load(Context& context, double load) {
  std::array<std::array<std::vector<double>, kPolicies.size()>, kMeasures.size()> values;
  std::string problem;
  const size_t jobs = context.quick ? 500 : 2'000;
  uint64_t replayed = 0;
  for (int seed = 1; seed <= context.pairs(); ++seed) {
    const auto trace = sim::make_trace(
        static_cast<uint64_t>(seed), {.jobs = jobs, .processors = kMachine.nodes * kMachine.processors, .load = load});
    for (size_t p = 0; p < kPolicies.size(); ++p) {
      const ReplayResult result = sim::replay(trace, kMachine, kPolicies[p]);
      if (!result.violation.empty()) problem = fmt::format("{}: {}", sim::name_of(kPolicies[p]), result.violation);
      replayed += result.ended;
      for (size_t m = 0; m < kMeasures.size(); ++m) values[m][p].push_back(result.*kMeasures[m].value);
    }
    context.say(fmt::format("load {}: workload {} replayed", load, seed));
  }
  for (size_t m = 0; m < kMeasures.size(); ++m) {
    Row row{.metric = fmt::format("{} at load {}", kMeasures[m].name, load),
            .unit = kMeasures[m].unit,
            .better = kMeasures[m].better};
    row.peer_name = "EASY backfilling over one pool of processors";
    row.settings = fmt::format("{} jobs of the model of Lublin and Feitelson, {} nodes of {} processors, virtual time",
                               jobs, kMachine.nodes, kMachine.processors);
    for (size_t p = 0; p < kPolicies.size(); ++p) {
      row.detail(std::string(sim::name_of(kPolicies[p])), median(values[m][p]));
      if (kPolicies[p] == Policy::kScheduler)
        for (const double value : values[m][p]) row.add_ours(value);
      if (kPolicies[p] == Policy::kEasy)
        for (const double value : values[m][p]) row.add_peer(value);
    }
    row.verified = replayed;
    row.problem = problem;
    context.emit(row);
  }
}

}  // namespace

Status run_scheduling_traces(Context& context) {
  for (const double load : kLoads) emit_load(context, load);
  return Status::ok();
}

}  // namespace uccp::bench
