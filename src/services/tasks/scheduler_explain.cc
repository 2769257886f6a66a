// Scheduler, the part that says why a task waits.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "services/tasks/scheduler.h"

namespace uccp::tasks {
namespace {

std::string cores(int64_t milli) { return fmt::format("{:g} CPU", static_cast<double>(milli) / 1000); }
std::string mebibytes(int64_t bytes, std::string_view what) {
  return fmt::format("{:.4g} MiB of {}", static_cast<double>(bytes) / (1 << 20), what);
}
std::string count_of(int64_t milli, const std::string& name) {
  return fmt::format("{:g} {}", static_cast<double>(milli) / 1000, name);
}

// Which part of a shape there is too little of: how much is asked for, and how much there is. The first one found, in
// the order in which people think of them.
struct Shortage {
  std::string asked, there;
  double share = 1;  // of what is asked for
};

std::optional<Shortage> shortage(const Shape& need, const Shape& have) {
  const auto share = [](int64_t asked, int64_t there) {
    return static_cast<double>(std::max<int64_t>(0, there)) / static_cast<double>(asked);
  };
  const auto clip = [](int64_t there) { return std::max<int64_t>(0, there); };
  if (need.gpus > have.gpus) {
    return Shortage{fmt::format("{} GPUs", need.gpus), std::to_string(clip(have.gpus)), share(need.gpus, have.gpus)};
  }
  for (const auto& [name, amount] : need.counted) {
    const auto found = have.counted.find(name);
    const int64_t there = found == have.counted.end() ? 0 : found->second;
    if (amount > there) return Shortage{count_of(amount, name), count_of(clip(there), name), share(amount, there)};
  }
  if (need.cpu_milli > have.cpu_milli) {
    return Shortage{cores(need.cpu_milli), cores(clip(have.cpu_milli)), share(need.cpu_milli, have.cpu_milli)};
  }
  if (need.memory > have.memory) {
    return Shortage{mebibytes(need.memory, "memory"), mebibytes(clip(have.memory), "memory"),
                    share(need.memory, have.memory)};
  }
  if (need.disk > have.disk) {
    return Shortage{mebibytes(need.disk, "disk"), mebibytes(clip(have.disk), "disk"), share(need.disk, have.disk)};
  }
  if (need.network_bps > have.network_bps) {
    return Shortage{fmt::format("{} bits a second of network", need.network_bps),
                    std::to_string(clip(have.network_bps)), share(need.network_bps, have.network_bps)};
  }
  return std::nullopt;
}

std::string list_of(const LabelMap& labels) {
  std::string text;
  for (const auto& [name, value] : labels) text += (text.empty() ? "" : ", ") + name + "=" + value;
  return text;
}

std::string wanted_labels(const Demand& demand) {
  std::string text;
  if (!demand.selector.empty()) text = list_of(demand.selector) + " of the task's node selector";
  for (const std::string& one : demand.required) text += (text.empty() ? "" : " and ") + one + " of its affinity";
  return text;
}

// What its devices have to be, as far as it asks for more than some.
std::string wanted_gpus(const Demand& demand) {
  const GpuNeed& gpu = demand.gpu;
  std::string text = gpu_share(demand.shape) > 0 ? "a share of a GPU" : fmt::format("{} GPUs", demand.shape.gpus);
  if (!gpu.type.empty()) text += " of type \"" + gpu.type + "\"";
  if (gpu.memory > 0) text += " with " + mebibytes(gpu.memory, "memory");
  if (gpu.link == GpuLink::kNuma) text += " on one memory node";
  if (gpu.link == GpuLink::kPcie) text += " under one PCIe switch";
  if (gpu.link == GpuLink::kNvlink) text += " joined by NVLink";
  if (gpu.driver != DottedVersion{}) text += fmt::format(" with driver {}.{} or newer", gpu.driver[0], gpu.driver[1]);
  return text;
}

// Of the workers that one obstacle keeps the task from: how many, and the one that comes closest.
struct Tally {
  size_t workers = 0;
  std::string nearest;
  std::optional<Shortage> lacks;
};

std::string message_of(Obstacle obstacle, const Tally& tally, const Demand& demand) {
  switch (obstacle) {
    case Obstacle::kNone: return "it fits on " + tally.nearest + " and is about to be placed";
    case Obstacle::kNotConnected: return "no connection to the agent of " + tally.nearest;
    case Obstacle::kCordoned: return tally.nearest + " is cordoned or being drained; uncordon it to use it";
    case Obstacle::kLabels: return "has not the labels " + wanted_labels(demand) + ", such as " + tally.nearest;
    case Obstacle::kTooSmall:
      if (!tally.lacks) {
        return fmt::format("has not {} of one kind, such as {}", wanted_gpus(demand), tally.nearest);
      }
      return fmt::format("the task asks for {}, the largest worker, {}, has {}", tally.lacks->asked, tally.nearest,
                         tally.lacks->there);
    case Obstacle::kBusy:
      return fmt::format("the task asks for {}, on {} {} is free now", tally.lacks ? tally.lacks->asked : "room",
                         tally.nearest, tally.lacks ? tally.lacks->there : "none");
    case Obstacle::kTaints: return tally.nearest + " has a taint that the task does not tolerate";
    case Obstacle::kSlots: return tally.nearest + " runs as many attempts as it may";
    case Obstacle::kReserved: return tally.nearest + " is kept free for a task that has waited longer";
    case Obstacle::kQuota: return "";  // holds for no worker in particular; said by explain()
    case Obstacle::kNear: return tally.nearest + " is not where the task's near tasks let it run";
  }
  return "";
}

std::string summary_of(const std::array<Tally, kObstacles>& tallies, size_t workers) {
  const auto count = [&](Obstacle obstacle) { return tallies[static_cast<size_t>(obstacle)].workers; };
  if (workers == 0) return "there is no worker";
  const size_t accepting = workers - count(Obstacle::kNotConnected) - count(Obstacle::kCordoned);
  const size_t labelled = accepting - count(Obstacle::kLabels);
  const size_t tolerated = labelled - count(Obstacle::kTaints);
  const size_t large_enough = tolerated - count(Obstacle::kTooSmall);
  if (accepting == 0) return "no worker takes tasks just now";
  if (labelled == 0) return fmt::format("none of {} workers has the labels of its node selector", accepting);
  if (tolerated == 0) return fmt::format("each of {} workers has a taint that it does not tolerate", labelled);
  if (large_enough == 0) return fmt::format("none of {} workers is large enough", tolerated);
  if (count(Obstacle::kNear) == large_enough) return "no worker is where its near tasks let it run";
  if (count(Obstacle::kNone) > 0) return "it is about to be placed";
  return fmt::format("waits for free resources on {} workers", large_enough);
}

}  // namespace

Explanation Scheduler::explain_class(Fleet::Asked& asked, const Class* cls) {
  const Demand& demand = asked.demand();
  Explanation out;
  out.workers = fleet_.size();
  std::array<Tally, kObstacles> tallies;
  for (const auto& [id, slot] : fleet_.by_id()) {
    Obstacle obstacle = fleet_.obstacle(slot, asked);
    if (obstacle == Obstacle::kBusy && cls != nullptr && has_room(*cls, slot)) obstacle = Obstacle::kNone;
    if (obstacle == Obstacle::kReserved && cls != nullptr && usable(*cls, slot)) obstacle = Obstacle::kNone;
    if (obstacle == Obstacle::kNone && !near_.allows(demand, fleet_.view(slot), false)) obstacle = Obstacle::kNear;
    Tally& tally = tallies[static_cast<size_t>(obstacle)];
    Shape have = fleet_.view(slot).capacity;
    if (obstacle == Obstacle::kBusy) have -= fleet_.used(slot);
    const auto lacks = shortage(demand.shape, have);
    const bool nearer = !tally.lacks || (lacks && lacks->share > tally.lacks->share);
    if (tally.workers++ == 0 || nearer) {
      tally.nearest = id;
      tally.lacks = lacks;
    }
  }
  for (size_t i = 0; i < kObstacles; ++i) {
    if (tallies[i].workers == 0) continue;
    const auto obstacle = static_cast<Obstacle>(i);
    out.reasons.push_back({obstacle, tallies[i].workers, message_of(obstacle, tallies[i], demand)});
  }
  std::ranges::sort(out.reasons, [](const auto& a, const auto& b) {
    return a.workers != b.workers ? a.workers > b.workers : a.obstacle < b.obstacle;
  });
  out.summary = summary_of(tallies, fleet_.size());
  note_unknown_labels(demand, out);
  return out;
}

// A label that no worker has at all is mostly a slip of the pen.
void Scheduler::note_unknown_labels(const Demand& demand, Explanation& out) const {
  std::string unknown;
  for (const auto& [key, value] : demand.selector) {
    const bool known = std::ranges::any_of(
        fleet_.by_id(), [&](const auto& one) { return fleet_.view(one.second).labels.contains(key); });
    if (!known) unknown += (unknown.empty() ? "" : ", ") + key;
  }
  if (unknown.empty()) return;
  for (Explanation::Reason& reason : out.reasons) {
    if (reason.obstacle == Obstacle::kLabels) reason.message += "; no worker at all has a label named " + unknown;
  }
}

Explanation Scheduler::explain_unqueued(QueuedTask task) {
  leave_headroom(task);
  Fleet::Asked asked(task.demand, fleet_);
  const uint64_t number = next_class_++;
  near_.add_class(number, task.demand, residents());
  Explanation out = explain_class(asked, nullptr);
  near_.remove_class(number, task.demand);
  return out;
}

std::optional<Explanation> Scheduler::explain(const TaskRef& ref) {
  Queued* found = queued_.find(ref);
  if (found == nullptr) return std::nullopt;
  Queued& queued = *found;
  Explanation out = explain_class(queued.cls->asked, queued.cls);
  if (queued.line == nullptr) {
    const auto gang = gangs_.find(gang_of(ref, queued.task.gang));
    const bool in_gang = gang != gangs_.end() && !delayed_.contains({queued.task.not_before_ms, ref});
    out.summary = in_gang ? explain_gang(gang->second) : "waits for its next attempt";
    if (in_gang && gang->second.line != nullptr) {
      if (const auto why = over_quota(gang->second.line, *gang->second.turn)) out.summary = "waits for quota: " + *why;
    }
    return out;
  }
  if (const auto why = over_quota(queued.line, *queued.cls)) {
    out.summary = "waits for quota: " + *why;
    for (Explanation::Reason& reason : out.reasons) {
      if (reason.obstacle == Obstacle::kNone) reason = {Obstacle::kQuota, reason.workers, *why};
    }
  }
  if (queued.cls->reserved != kNoWorker) out.summary += explain_hold(*queued.cls);
  out.ahead = queues_.ahead(queued.line, {queued.task.order, &queued.task.ref});
  return out;
}

}  // namespace uccp::tasks
