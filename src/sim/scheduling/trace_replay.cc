#include "sim/scheduling/trace_replay.h"

#include <algorithm>
#include <map>
#include <memory>
#include <queue>

#include "services/tasks/scheduler.h"
#include "sim/scheduling/reference_policies.h"

namespace uccp::sim {
namespace {

constexpr int64_t kSlowdownFloorS = 10;
constexpr size_t kPlacedPerRound = 256;
// The scheduler is asked at least so often while something waits, as the leader asks it.
constexpr int64_t kRoundEveryS = 10;
// With everything ended and submitted, what waits starts within this time or never.
constexpr int64_t kIdleMaxS = 86'400;

// What decides, behind one face.
class Decider {
 public:
  virtual ~Decider() = default;
  virtual void submit(size_t job, const TraceJob& what) = 0;
  virtual void end(size_t job) = 0;
  virtual std::vector<size_t> start(int64_t now_s) = 0;
  // When it wants to be asked again although nothing happened; -1: never.
  virtual int64_t again_s(int64_t now_s) const = 0;
  // What is wrong with the books; empty: nothing.
  virtual std::string check() const = 0;
};

class ByReference final : public Decider {
 public:
  ByReference(Policy policy, const TraceMachine& machine) : reference_(policy, machine.nodes * machine.processors) {}
  void submit(size_t job, const TraceJob& what) override { reference_.submit(job, what.processors, what.limit_s); }
  void end(size_t job) override { reference_.end(job); }
  std::vector<size_t> start(int64_t now_s) override { return reference_.start(now_s); }
  int64_t again_s(int64_t) const override { return -1; }
  std::string check() const override { return reference_.free() < 0 ? "more processors are used than there are" : ""; }

 private:
  ReferencePolicy reference_;
};

class ByScheduler final : public Decider {
 public:
  explicit ByScheduler(const TraceMachine& machine) : processors_(machine.processors) {
    for (int64_t node = 0; node < machine.nodes; ++node) {
      const std::string id = "node_" + std::to_string(node);
      free_[id] = machine.processors;
      scheduler_.set_worker({.id = id,
                             .capacity = {.cpu_milli = machine.processors * 1000},
                             .slots = static_cast<size_t>(machine.processors)});
    }
  }

  void submit(size_t job, const TraceJob& what) override {
    const int64_t parts = (what.processors + processors_ - 1) / processors_;
    jobs_[job] = {what.processors, static_cast<size_t>(parts), name_of(what), what.run_s, {}};
    for (int64_t part = 0; part < parts; ++part) {
      tasks::QueuedTask task{.ref = ref_of(job, static_cast<size_t>(part))};
      task.demand.shape.cpu_milli = size_of(what.processors, static_cast<size_t>(part)) * 1000;
      task.demand.duration_ms = what.limit_s * 1000;
      task.user = std::to_string(what.user);
      task.name = name_of(what);
      task.order = job + 1;
      task.queued_ms = what.submit_s * 1000 + 1;
      if (parts > 1) {
        task.gang = std::to_string(job);
        task.gang_size = static_cast<size_t>(parts);
      }
      scheduler_.add_task(std::move(task));
    }
  }

  void end(size_t job) override {
    const auto node = jobs_.extract(job);
    scheduler_.note_run_time({"trace", "jobs", node.mapped().name}, node.mapped().run_s * 1000);
    for (size_t part = 0; part < node.mapped().parts; ++part) scheduler_.release(ref_of(job, part));
    for (const auto& [worker, processors] : node.mapped().at) free_[worker] += processors;
  }

  std::vector<size_t> start(int64_t now_s) override {
    std::vector<size_t> out;
    while (true) {
      const auto placed = scheduler_.assign(now_s * 1000 + 1, kPlacedPerRound);
      for (const tasks::Assignment& one : placed) {
        const auto job = static_cast<size_t>(std::stoull(one.task.id));
        const auto part = static_cast<size_t>(std::stoull(one.task.id.substr(one.task.id.find('/') + 1)));
        Job& at = jobs_.at(job);
        const int64_t processors = size_of(at.processors, part);
        free_[one.worker] -= processors;
        at.at.emplace_back(one.worker, processors);
        if (at.at.size() == at.parts) out.push_back(job);
      }
      if (placed.size() < kPlacedPerRound) return out;
    }
  }

  int64_t again_s(int64_t now_s) const override { return scheduler_.queued() > 0 ? now_s + kRoundEveryS : -1; }

  std::string check() const override {
    for (const auto& [worker, free] : free_) {
      if (free < 0) return worker + " was given more than it has";
    }
    for (const auto& [job, what] : jobs_) {
      if (!what.at.empty() && what.at.size() < what.parts)
        return "a part of job " + std::to_string(job) + " runs alone";
    }
    return "";
  }

 private:
  struct Job {
    int64_t processors = 0;
    size_t parts = 0;
    std::string name;
    int64_t run_s = 0;
    std::vector<std::pair<std::string, int64_t>> at;
  };
  // A trace has no names; jobs of one user, size and limit are taken to be of one program.
  static std::string name_of(const TraceJob& job) {
    return std::to_string(job.user) + "/" + std::to_string(job.processors) + "/" + std::to_string(job.limit_s);
  }
  static tasks::TaskRef ref_of(size_t job, size_t part) {
    return {"trace", "jobs", std::to_string(job) + "/" + std::to_string(part)};
  }

  int64_t size_of(int64_t processors, size_t part) const {
    return std::min(processors - static_cast<int64_t>(part) * processors_, processors_);
  }

  const int64_t processors_;  // of a node
  tasks::Scheduler scheduler_;
  std::map<std::string, int64_t> free_;
  std::map<size_t, Job> jobs_;
};

void sum_up(const std::vector<TraceJob>& jobs, const TraceMachine& machine, ReplayResult& out) {
  std::vector<double> waits;
  std::map<int64_t, std::pair<double, size_t>> users;
  double slowdowns = 0, used = 0;
  const int64_t first_s = jobs.empty() ? 0 : jobs.front().submit_s, last_s = jobs.empty() ? 0 : jobs.back().submit_s;
  for (size_t job = 0; job < jobs.size(); ++job) {
    if (out.start_s[job] < 0) continue;
    const TraceJob& one = jobs[job];
    const auto wait = static_cast<double>(out.start_s[job] - one.submit_s);
    const double slowdown = std::max(
        1.0, (wait + static_cast<double>(one.run_s)) / static_cast<double>(std::max(one.run_s, kSlowdownFloorS)));
    waits.push_back(wait);
    slowdowns += slowdown;
    users[one.user].first += slowdown;
    ++users[one.user].second;
    const int64_t busy_s = std::min(out.start_s[job] + one.run_s, last_s) - out.start_s[job];
    used += static_cast<double>(std::max<int64_t>(0, busy_s) * one.processors);
    out.makespan_s = std::max(out.makespan_s, out.start_s[job] + one.run_s - first_s);
  }
  if (waits.empty()) return;
  const auto count = static_cast<double>(waits.size());
  std::ranges::sort(waits);
  for (const double wait : waits) out.wait_mean_s += wait / count;
  out.wait_p95_s = waits[static_cast<size_t>(0.95 * (count - 1))];
  out.slowdown_mean = slowdowns / count;
  const auto there = static_cast<double>((last_s - first_s) * machine.nodes * machine.processors);
  out.utilisation = there > 0 ? used / there : 0;
  double sum = 0, squares = 0;
  for (const auto& [user, of] : users) {
    const double mean = of.first / static_cast<double>(of.second);
    sum += mean;
    squares += mean * mean;
  }
  out.fairness = sum * sum / (static_cast<double>(users.size()) * squares);
}

}  // namespace

std::string_view name_of(Policy policy) {
  switch (policy) {
    case Policy::kScheduler: return "scheduler";
    case Policy::kFcfs: return "fcfs";
    case Policy::kEasy: return "easy";
    case Policy::kConservative: return "conservative";
  }
  return "";
}

ReplayResult replay(const std::vector<TraceJob>& jobs, const TraceMachine& machine, Policy policy) {
  std::unique_ptr<Decider> decider;
  if (policy == Policy::kScheduler) decider = std::make_unique<ByScheduler>(machine);
  else decider = std::make_unique<ByReference>(policy, machine);
  ReplayResult out;
  out.start_s.assign(jobs.size(), -1);
  using End = std::pair<int64_t, size_t>;
  std::priority_queue<End, std::vector<End>, std::greater<>> ends;
  size_t next = 0;
  int64_t now_s = 0, again_s = -1, busy_s = 0;
  while (out.violation.empty() && (next < jobs.size() || out.ended + out.refused < jobs.size())) {
    int64_t at_s = again_s;
    if (next < jobs.size() && (at_s < 0 || jobs[next].submit_s < at_s)) at_s = jobs[next].submit_s;
    if (!ends.empty() && (at_s < 0 || ends.top().first < at_s)) at_s = ends.top().first;
    if (at_s < 0 || (ends.empty() && next == jobs.size() && at_s > busy_s + kIdleMaxS)) {
      out.violation = "jobs wait on an idle machine";
      break;
    }
    now_s = at_s;
    if (!ends.empty() || next < jobs.size()) busy_s = now_s;
    for (; !ends.empty() && ends.top().first <= now_s; ends.pop(), ++out.ended) decider->end(ends.top().second);
    for (; next < jobs.size() && jobs[next].submit_s <= now_s; ++next) {
      if (jobs[next].processors > machine.nodes * machine.processors) ++out.refused;
      else decider->submit(next, jobs[next]);
    }
    for (const size_t job : decider->start(now_s)) {
      if (out.start_s[job] >= 0) out.violation = "job " + std::to_string(job + 1) + " was started twice";
      out.start_s[job] = now_s;
      ends.emplace(now_s + jobs[job].run_s, job);
    }
    if (out.violation.empty()) out.violation = decider->check();
    again_s = decider->again_s(now_s);
  }
  sum_up(jobs, machine, out);
  return out;
}

}  // namespace uccp::sim
