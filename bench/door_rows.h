// The two rows of a method at a door: the most calls a second, and the tail of a fixed rate.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

#include "bench/bench.h"
#include "bench/load.h"

namespace uccp::bench {

inline constexpr int kDoorInFlight = 64;
inline constexpr size_t kDoorOpenLoopInFlight = 4096;

struct DoorGoals {
  double rate = 0;  // calls a second, in a closed loop at least and in the open loop exactly
  double p99_ms = 0;
};

struct DoorRows {
  std::string method, door;  // "Discover", "gRPC"
  std::string settings;
  DoorGoals goals;
};

// Alternates a closed and an open loop and emits their rows. `Load` is GrpcLoad or RestLoad.
template <typename Load>
void measure_door(Context& context, Load& load, const Work& work, int server_pid, const DoorRows& what) {
  const auto& [method, door, settings, goals] = what;
  Row rate{.metric = fmt::format("{} over {}, {} in flight", method, door, kDoorInFlight),
           .unit = "1/s",
           .goal = {Goal::Of::kOurs, Better::kHigher, goals.rate}};
  rate.settings = "closed loop, " + settings;
  Row tail{.metric = fmt::format("{} p99 over {} at {:.0f}/s", method, door, goals.rate),
           .unit = "ms",
           .better = Better::kLower,
           .goal = {Goal::Of::kOurs, Better::kLower, goals.p99_ms}};
  tail.settings = "open loop, " + settings;
  LoadResult closed, open;
  double offered_min = 1;
  for (int i = 0; i < context.pairs(); ++i) {
    closed = load.run(work, {.in_flight = kDoorInFlight, .seconds = context.seconds(), .server_pids = {server_pid}});
    open = load.run(work, {.in_flight = kDoorOpenLoopInFlight,
                           .rate = goals.rate,
                           .seconds = context.seconds(),
                           .server_pids = {server_pid}});
    rate.add_ours(closed.rate());
    tail.add_ours(open.latency.percentile_ms(0.99));
    rate.verified += closed.ok;
    tail.verified += open.ok;
    offered_min = std::min(offered_min, open.rate() / goals.rate);
    if (closed.failed + closed.shed > 0) rate.problem = "failed calls: " + closed.first_error;
    if (open.failed + open.shed > 0) tail.problem = "failed calls: " + open.first_error;
  }
  if (offered_min < 0.99) tail.problem += fmt::format("only {:.0f} % of the rate was answered", offered_min * 100);
  for (const auto& [row, result] : {std::pair<Row&, LoadResult&>{rate, closed}, {tail, open}}) {
    row.detail("p50Ms", result.latency.percentile_ms(0.5));
    row.detail("p99Ms", result.latency.percentile_ms(0.99));
    row.detail("maxMs", result.latency.max_ms());
    row.detail("serverUsPerOp", result.server_us_per_op());
    row.detail("serverCores", result.server_cores);
    row.detail("generatorCores", result.generator_cores);
    context.emit(row);
  }
}

}  // namespace uccp::bench
