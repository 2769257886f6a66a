#include "services/tasks/autoscaler.h"

#include <fmt/format.h>

#include <algorithm>

#include "services/tasks/autoscaler_round.h"

namespace uccp::tasks {
namespace {

// Between two starts of the agent of one instance.
constexpr int64_t kRestartPauseMs = 2'000;

}  // namespace

std::string_view name_of(ScalingDecision::Kind kind) {
  switch (kind) {
    case ScalingDecision::Kind::kStart: return "start";
    case ScalingDecision::Kind::kRestart: return "restart";
    case ScalingDecision::Kind::kDrain: return "drain";
    case ScalingDecision::Kind::kRemove: return "remove";
    case ScalingDecision::Kind::kStop: return "stop";
    case ScalingDecision::Kind::kGiveUp: return "give_up";
  }
  return "unknown";
}

Autoscaler::Autoscaler(AutoscalerOptions options, std::vector<ScalingGroup> groups)
    : options_(options), groups_(std::move(groups)) {
  std::ranges::sort(groups_, [](const ScalingGroup& a, const ScalingGroup& b) {
    return std::tie(a.price_per_hour, a.name) < std::tie(b.price_per_hour, b.name);
  });
}

void Autoscaler::start_failed(const std::string& group, int64_t now_ms) {
  ScalingMemory& state = states_[group];
  const int doublings = std::min(state.failures++, 20);
  state.paused_until_ms = now_ms + std::min(options_.backoff_ms_max, options_.backoff_ms << doublings);
}

void Autoscaler::look_at_starts(const ScalingInput& input, ScalingOutput& out) {
  std::set<std::string, std::less<>> known;
  for (const ScalingWorker& worker : input.workers) {
    if (!worker.instance.empty()) known.insert(worker.instance);
  }
  for (const ScalingInstance& one : input.instances) {
    if (one.stopping || known.contains(one.id)) continue;
    if (one.registered) {
      out.decisions.push_back({.kind = ScalingDecision::Kind::kStop,
                               .group = one.group,
                               .instance = one.id,
                               .cause = "deregistered",
                               .reason = "its worker is not in the registry any more"});
    } else if (!one.alive || one.age_ms >= options_.start_timeout_ms) {
      start_failed(one.group, input.now_ms);
      const std::string why = one.alive
                                  ? fmt::format("it did not register within {} s", options_.start_timeout_ms / 1000)
                                  : "its agent ended before it had registered";
      out.decisions.push_back({.kind = ScalingDecision::Kind::kGiveUp,
                               .group = one.group,
                               .instance = one.id,
                               .cause = "start_failed",
                               .reason = why});
    }
  }
  for (const ScalingWorker& worker : input.workers) {
    if (worker.group.empty() || worker.silent) continue;
    ScalingMemory& state = states_[worker.group];
    // One that registered ends a row of failures.
    if (state.met.insert(worker.instance).second) state.failures = 0;
    state.real = worker.view.capacity;
  }
  for (auto& [name, state] : states_) {
    std::erase_if(state.met, [&](const std::string& instance) { return !known.contains(instance); });
  }
}

// Workers whose agent is gone, and those that are to go and may.
void Autoscaler::tend(const ScalingInput& input, ScalingOutput& out) const {
  std::map<std::string_view, const ScalingInstance*> instances;
  for (const ScalingInstance& one : input.instances) instances[one.id] = &one;
  for (const ScalingWorker& worker : input.workers) {
    if (worker.group.empty()) continue;
    ScalingDecision decision{.group = worker.group, .instance = worker.instance, .worker = worker.view.id};
    if (!worker.busy && (worker.draining || worker.lost)) {
      decision.kind = ScalingDecision::Kind::kRemove;
      decision.cause = worker.draining ? "drained" : "lost";
      decision.reason = worker.draining ? "it is drained and runs nothing" : "it is fenced and runs nothing";
      out.decisions.push_back(std::move(decision));
      continue;
    }
    const auto instance = instances.find(worker.instance);
    if (!worker.silent || instance == instances.end()) continue;
    if (instance->second->alive || instance->second->age_ms < kRestartPauseMs) continue;
    decision.kind = ScalingDecision::Kind::kRestart;
    decision.cause = "agent_ended";
    decision.reason = "its agent ended; started again, it says what it ran";
    out.decisions.push_back(std::move(decision));
  }
}

ScalingOutput Autoscaler::step(const ScalingInput& input) {
  ScalingOutput out;
  look_at_starts(input, out);
  tend(input, out);
  ScalingRound round(options_, groups_, states_, input, out);
  round.run();
  return out;
}

}  // namespace uccp::tasks
