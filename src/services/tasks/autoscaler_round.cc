#include "services/tasks/autoscaler_round.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <tuple>

#include "services/tasks/shared_devices.h"

namespace uccp::tasks {
namespace {

// Simulated placements of a step, so that a long queue does not hold the loop.
constexpr size_t kPlacedMax = 5'000;

bool has_near(const Demand& demand, bool away) {
  return std::ranges::any_of(demand.near, [&](const NearTerm& term) {
    return !term.preferred &&
           (away ? term.away && term.topology_key.empty() : !term.away || !term.topology_key.empty());
  });
}

std::string words_of(const Shape& shape) {
  std::string text;
  const auto add = [&](std::string part) { text += (text.empty() ? "" : ", ") + std::move(part); };
  if (shape.gpus > 0) add(fmt::format("{} GPUs", shape.gpus));
  if (shape.cpu_milli > 0) add(fmt::format("{:g} CPU", static_cast<double>(shape.cpu_milli) / 1000));
  if (shape.memory > 0) add(fmt::format("{:.4g} MiB of memory", static_cast<double>(shape.memory) / (1 << 20)));
  if (shape.disk > 0) add(fmt::format("{:.4g} MiB of disk", static_cast<double>(shape.disk) / (1 << 20)));
  for (const auto& [name, amount] : shape.counted)
    add(fmt::format("{:g} {}", static_cast<double>(amount) / 1000, name));
  return text.empty() ? "nothing in particular" : text;
}

// Positions by falling weight; equal ones as they came.
std::vector<size_t> largest_first(const std::vector<double>& weights) {
  std::vector<size_t> order(weights.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::sort(order,
                    [&](size_t a, size_t b) { return weights[a] != weights[b] ? weights[a] > weights[b] : a < b; });
  return order;
}

// What a worker of the group costs, for the reason of its start.
std::string why_group(const ScalingGroup& group) {
  if (group.price_per_hour <= 0) return "workers of group " + group.name + " have no price";
  return fmt::format("group {} at {:g} an hour is the cheapest that may start", group.name, group.price_per_hour);
}

// Tasks that share devices need as many devices as their shares add up to.
size_t workers_worth(const ScalingDemand& demand) {
  const int64_t share = gpu_share(demand.demand.shape);
  if (share <= 0) return demand.count;
  const auto sum = static_cast<int64_t>(demand.count) * share;
  return static_cast<size_t>((sum + SharedDevices::kWhole - 1) / SharedDevices::kWhole);
}

}  // namespace

ScalingRound::ScalingRound(const AutoscalerOptions& options, const std::vector<ScalingGroup>& groups,
                           std::map<std::string, ScalingMemory>& memory, const ScalingInput& input, ScalingOutput& out)
    : options_(options), groups_(groups), memory_(memory), input_(input), out_(out) {}

void ScalingRound::run() {
  set_up();
  place_demand();
  keep_minimum();
  keep_headroom();
  scale_down();
  for (const ScalingGroup& group : groups_) {
    const Tally& tally = tallies_[group.name];
    out_.counts[group.name] = {tally.staying, tally.coming, tally.ready, tally.all - tally.staying};
  }
}

// What a worker of the group is expected to be: as configured, but not more than the last one really had.
WorkerView ScalingRound::template_of(const ScalingGroup& group) const {
  WorkerView view = group.worker;
  const auto known = memory_.find(group.name);
  if (known == memory_.end() || !known->second.real) return view;
  const Shape& real = *known->second.real;
  view.capacity.cpu_milli = std::min(view.capacity.cpu_milli, real.cpu_milli);
  view.capacity.memory = std::min(view.capacity.memory, real.memory);
  view.capacity.disk = std::min(view.capacity.disk, real.disk);
  view.capacity.gpus = std::min(view.capacity.gpus, real.gpus);
  return view;
}

WorkerSlot ScalingRound::add_place(WorkerView view, Place place) {
  view.id = fmt::format("{}", next_new_++);
  view.accepts = view.connected = true;
  const WorkerSlot slot = fleet_.set(view);
  places_[slot] = std::move(place);
  return slot;
}

void ScalingRound::set_up() {
  for (const ScalingGroup& group : groups_) tallies_[group.name];
  for (size_t i = 0; i < input_.workers.size(); ++i) {
    const ScalingWorker& worker = input_.workers[i];
    const auto tally = tallies_.find(worker.group);
    if (tally != tallies_.end()) {
      ++all_;
      ++tally->second.all;
      if (!worker.draining && !worker.lost) ++tally->second.staying;
      if (!worker.draining && !worker.silent) ++tally->second.ready;
    }
    if (worker.draining || worker.lost || !worker.view.accepts || worker.running >= worker.view.slots) continue;
    WorkerView view = worker.view;
    view.capacity -= worker.used;
    view.slots -= worker.running;
    add_place(std::move(view), {Room::kPresent, i, worker.group});
  }
  std::set<std::string_view> known;
  for (const ScalingWorker& worker : input_.workers) known.insert(worker.instance);
  std::set<std::string_view> given_up;
  for (const ScalingDecision& decision : out_.decisions) {
    if (decision.kind == ScalingDecision::Kind::kGiveUp) given_up.insert(decision.instance);
  }
  for (const ScalingInstance& one : input_.instances) {
    const auto group = std::ranges::find(groups_, one.group, &ScalingGroup::name);
    if (group == groups_.end() || known.contains(one.id)) continue;
    ++all_;
    Tally& tally = tallies_[one.group];
    ++tally.all;
    if (one.stopping || one.registered || given_up.contains(one.id)) continue;
    ++tally.staying;
    ++tally.coming;
    add_place(template_of(*group), {Room::kComing, 0, one.group});
  }
}

// Largest part of the largest group's worker that is asked for.
double ScalingRound::weight(const Shape& shape) const {
  Shape most;
  for (const ScalingGroup& group : groups_) {
    most.cpu_milli = std::max(most.cpu_milli, group.worker.capacity.cpu_milli);
    most.memory = std::max(most.memory, group.worker.capacity.memory);
    most.disk = std::max(most.disk, group.worker.capacity.disk);
    most.gpus = std::max(most.gpus, group.worker.capacity.gpus);
  }
  const auto part = [](int64_t asked, int64_t there) {
    return there <= 0 ? (asked > 0 ? 1.0 : 0.0) : static_cast<double>(asked) / static_cast<double>(there);
  };
  return std::max({part(shape.cpu_milli, most.cpu_milli), part(shape.memory, most.memory), part(shape.disk, most.disk),
                   part(shape.gpus, most.gpus)});
}

// Gangs first, since what is left between them serves single tasks, and in each kind the largest.
void ScalingRound::place_demand() {
  std::vector<double> weights;
  for (const ScalingGang& gang : input_.gangs) {
    double sum = 0;
    for (const Demand& member : gang.members) sum += weight(member.shape);
    weights.push_back(sum);
  }
  for (const size_t i : largest_first(weights)) place_gang(input_.gangs[i]);
  weights.clear();
  for (const ScalingDemand& demand : input_.demand) weights.push_back(weight(demand.demand.shape));
  for (const size_t i : largest_first(weights)) place_class(input_.demand[i]);
}

// A place for one task among those that are there or decided. Tasks that keep away from others of their kind go where
// none was placed, and never where others may run already: there they would have been placed for real.
WorkerSlot ScalingRound::find(Fleet::Asked& asked, const std::vector<WorkerSlot>* avoided) {
  if (avoided == nullptr) return fleet_.pick(asked);
  return fleet_.pick(asked, [&](WorkerSlot slot) {
    return places_.at(slot).room != Room::kPresent && std::ranges::find(*avoided, slot) == avoided->end();
  });
}

bool ScalingRound::may_start(const ScalingGroup& group, Refusal& refusal) const {
  const auto known = memory_.find(group.name);
  if (known != memory_.end() && known->second.paused_until_ms > input_.now_ms) {
    refusal.why = fmt::format("group {}, which could hold it, pauses for {} s after {} failed starts", group.name,
                              (known->second.paused_until_ms - input_.now_ms + 999) / 1000, known->second.failures);
    return false;
  }
  if (tallies_.at(group.name).all >= group.max) {
    refusal.why = fmt::format("group {}, which could hold it, has its most workers, {}", group.name, group.max);
    return false;
  }
  if (all_ >= options_.max_workers) {
    refusal.why =
        fmt::format("all groups together have their most workers, {} (max_workers_scaling)", options_.max_workers);
    return false;
  }
  if (starts_ >= options_.starts_a_step) {
    refusal.why = "more workers are started in a moment";
    return false;
  }
  return true;
}

// A new worker for so many more tasks, of the group whose workers for all of them cost least in an hour: a large worker
// may cost more than a small one, and less than as many small ones as it replaces. Of equal ones the cheaper worker.
WorkerSlot ScalingRound::add_new(Fleet::Asked& asked, size_t count, Refusal& refusal) {
  struct Offer {
    double cost = 0;
    size_t rank = 0;
  };
  std::vector<Offer> offers;
  for (size_t rank = 0; rank < groups_.size(); ++rank) {
    const WorkerView worker = template_of(groups_[rank]);
    const WorkerSlot slot = add_place(worker, {Room::kNew, 0, groups_[rank].name});
    const bool fits = fleet_.fits_empty(slot, asked.needs()) && fleet_.meets(slot, asked);
    auto each = static_cast<int64_t>(std::max<size_t>(1, worker.slots));
    for (const Need& need : asked.needs()) {
      if (fits) each = std::min(each, fleet_.capacity(slot, need.dimension) / std::max<int64_t>(1, need.amount));
    }
    places_.erase(slot);
    fleet_.remove(slot);
    if (!fits) continue;
    const auto workers = (static_cast<int64_t>(count) + each - 1) / std::max<int64_t>(1, each);
    offers.push_back({groups_[rank].price_per_hour * static_cast<double>(workers), rank});
  }
  std::ranges::sort(offers, {}, [](const Offer& offer) { return std::pair(offer.cost, offer.rank); });
  for (const Offer& offer : offers) {
    const ScalingGroup& group = groups_[offer.rank];
    refusal.fits_a_group = true;
    if (may_start(group, refusal)) return add_place(template_of(group), {Room::kNew, 0, group.name});
  }
  if (!refusal.fits_a_group) {
    refusal.why = "no scaling group could hold it: it asks for " + words_of(asked.demand().shape);
    if (groups_.size() == 1)
      refusal.why += ", a worker of group " + groups_[0].name + " has " + words_of(template_of(groups_[0]).capacity);
  }
  return kNoWorker;
}

void ScalingRound::note(uint64_t key, const Place& place) {
  if (place.room == Room::kPresent) return;
  out_.notes[key] = place.room == Room::kNew ? "a worker of group " + place.group + " is being started for it"
                                             : "a worker of group " + place.group + " is on its way for it";
}

void ScalingRound::start(const ScalingGroup& group, const char* cause, std::string reason) {
  ++starts_;
  ++all_;
  Tally& tally = tallies_[group.name];
  ++tally.all;
  ++tally.staying;
  ++tally.coming;
  memory_[group.name].started_ms = input_.now_ms;
  out_.decisions.push_back(
      {.kind = ScalingDecision::Kind::kStart, .group = group.name, .cause = cause, .reason = std::move(reason)});
}

void ScalingRound::place_class(const ScalingDemand& demand) {
  if (has_near(demand.demand, false)) {
    out_.notes[demand.key] = "where it may run depends on other tasks, so no worker is started for it";
    return;
  }
  Fleet::Asked asked(demand.demand, fleet_);
  std::vector<WorkerSlot> used;
  const std::vector<WorkerSlot>* avoided = has_near(demand.demand, true) ? &used : nullptr;
  const size_t count = std::min(workers_worth(demand), kPlacedMax);
  for (size_t i = 0; i < count; ++i) {
    WorkerSlot slot = find(asked, avoided);
    if (slot == kNoWorker && demand.waited_ms < options_.up_delay_ms) return;
    if (slot == kNoWorker) {
      Refusal refusal;
      slot = add_new(asked, count - i, refusal);
      if (slot == kNoWorker) {
        out_.notes.try_emplace(demand.key, refusal.why);
        return;
      }
      const auto group = std::ranges::find(groups_, places_.at(slot).group, &ScalingGroup::name);
      start(
          *group, "demand",
          fmt::format("{} tasks that ask for {} wait, for up to {:.1f} s, and fit nowhere; {}", demand.count,
                      words_of(demand.demand.shape), static_cast<double>(demand.waited_ms) / 1000, why_group(*group)));
    }
    fleet_.take(slot, asked.needs());
    ++places_.at(slot).placed;
    used.push_back(slot);
    if (i == 0) note(demand.key, places_.at(slot));
  }
}

// All of it, or nothing of it.
void ScalingRound::place_gang(const ScalingGang& gang) {
  std::vector<std::pair<WorkerSlot, Needs>> taken;
  std::vector<WorkerSlot> added;
  Refusal refusal;
  // What a gang asks for is counted as begun while it is placed, so that it keeps to the most of each group.
  std::map<std::string, Tally> tallies = tallies_;
  const size_t all = all_, starts = starts_;
  bool fits = true;
  std::vector<double> weights;
  for (const Demand& member : gang.members) weights.push_back(weight(member.shape));
  size_t left = gang.members.size();
  for (const size_t i : largest_first(weights)) {
    Fleet::Asked asked(gang.members[i], fleet_);
    WorkerSlot slot = fleet_.pick(asked);
    if (slot == kNoWorker && gang.waited_ms >= options_.up_delay_ms) slot = add_new(asked, left, refusal);
    --left;
    if (slot == kNoWorker) {
      fits = false;
      break;
    }
    Place& place = places_.at(slot);
    if (place.room == Room::kNew && place.placed == 0) {
      added.push_back(slot);
      ++tallies_[place.group].all;
      ++all_;
    }
    fleet_.take(slot, asked.needs());
    ++place.placed;
    taken.emplace_back(slot, asked.needs());
  }
  tallies_ = std::move(tallies);
  all_ = all;
  starts_ = starts;
  if (!fits) {
    for (const auto& [slot, needs] : taken) {
      fleet_.give(slot, needs);
      --places_.at(slot).placed;
    }
    for (const WorkerSlot slot : added) {
      places_.erase(slot);
      fleet_.remove(slot);
    }
    if (!refusal.why.empty()) out_.notes[gang.key] = "for all of the gang at once: " + refusal.why;
    return;
  }
  for (const WorkerSlot slot : added) {
    const auto group = std::ranges::find(groups_, places_.at(slot).group, &ScalingGroup::name);
    start(*group, "gang",
          fmt::format("a gang of {} tasks waits, for {:.1f} s, and does not fit; {}", gang.members.size(),
                      static_cast<double>(gang.waited_ms) / 1000, why_group(*group)));
  }
  const auto shown =
      std::ranges::find_if(taken, [&](const auto& one) { return places_.at(one.first).room != Room::kPresent; });
  if (shown != taken.end()) note(gang.key, places_.at(shown->first));
}

void ScalingRound::keep_minimum() {
  Refusal unused;
  size_t staying = 0;
  for (const ScalingGroup& group : groups_) {
    while (tallies_[group.name].staying < group.min && may_start(group, unused))
      start(group, "minimum", fmt::format("the group is to have at least {} workers", group.min));
    staying += tallies_[group.name].staying;
  }
  for (const ScalingGroup& group : groups_) {
    for (; staying < options_.min_workers && may_start(group, unused); ++staying)
      start(group, "minimum", fmt::format("all groups are to have at least {} workers", options_.min_workers));
  }
}

// The part of the metric that is in use on the workers of groups that stay, in reach, and on their way.
double ScalingRound::share_in_use(const ScalingWorker* without) const {
  int64_t used = 0, total = 0;
  const auto amount = [&](const Shape& shape, size_t slots) -> int64_t {
    switch (options_.metric) {
      case ScalingMetric::kCpu: return shape.cpu_milli;
      case ScalingMetric::kMemory: return shape.memory;
      case ScalingMetric::kGpu: return shape.gpus;
      case ScalingMetric::kTasks: return static_cast<int64_t>(slots);
      case ScalingMetric::kNone: return 0;
    }
    return 0;
  };
  for (const ScalingWorker& worker : input_.workers) {
    if (&worker == without || !tallies_.contains(worker.group) || worker.draining || worker.lost) continue;
    used += amount(worker.used, worker.running);
    total += amount(worker.view.capacity, worker.view.slots);
  }
  for (const auto& [slot, place] : places_) {
    if (place.room != Room::kPresent) total += amount(fleet_.view(slot).capacity, fleet_.view(slot).slots);
  }
  if (total > 0) return static_cast<double>(used) / static_cast<double>(total);
  return used > 0 ? 1 : 0;
}

// One more worker before tasks have to wait; one at a time, so that its effect is seen.
void ScalingRound::keep_headroom() {
  if (options_.metric == ScalingMetric::kNone || starts_ > 0) return;
  if (std::ranges::any_of(tallies_, [](const auto& one) { return one.second.coming > 0; })) return;
  const double share = share_in_use(nullptr);
  if (share <= options_.threshold) return;
  Refusal unused;
  for (const ScalingGroup& group : groups_) {
    if (!may_start(group, unused)) continue;
    return start(group, "threshold",
                 fmt::format("{:.0f} % of the groups' workers is in use, more than {:.0f} %", share * 100,
                             options_.threshold * 100));
  }
}

bool ScalingRound::may_drain(const ScalingWorker& worker) const {
  const auto group = std::ranges::find(groups_, worker.group, &ScalingGroup::name);
  if (group == groups_.end() || worker.draining || worker.lost || worker.silent || worker.running > 0 || worker.busy ||
      !worker.view.accepts)
    return false;
  if (worker.idle_ms < options_.down_idle_ms) return false;
  const auto known = memory_.find(group->name);
  if (known != memory_.end() && known->second.started_ms >= 0 &&
      input_.now_ms - known->second.started_ms < options_.cool_down_ms)
    return false;
  if (tallies_.at(group->name).staying <= group->min) return false;
  size_t staying = 0;
  for (const auto& [name, tally] : tallies_) staying += tally.staying;
  if (staying <= options_.min_workers) return false;
  return options_.metric == ScalingMetric::kNone || share_in_use(&worker) <= options_.threshold;
}

// The dearest first, and of a group the one that was idle longest; one a group and step where a threshold counts, so
// that each is judged by what is left.
void ScalingRound::scale_down() {
  std::vector<std::pair<size_t, const ScalingWorker*>> candidates;  // rank of the group
  std::set<const ScalingWorker*> needed;
  for (const auto& [slot, place] : places_) {
    if (place.room == Room::kPresent && place.placed > 0) needed.insert(&input_.workers[place.worker]);
  }
  for (const ScalingWorker& worker : input_.workers) {
    const auto group = std::ranges::find(groups_, worker.group, &ScalingGroup::name);
    if (group != groups_.end() && !needed.contains(&worker))
      candidates.emplace_back(static_cast<size_t>(groups_.end() - group), &worker);
  }
  std::ranges::sort(candidates, [](const auto& a, const auto& b) {
    if (a.first != b.first) return a.first < b.first;
    return std::tie(b.second->idle_ms, a.second->view.id) < std::tie(a.second->idle_ms, b.second->view.id);
  });
  const size_t most = options_.metric == ScalingMetric::kNone ? options_.drains_a_step : 1;
  size_t drained = 0;
  for (const auto& [rank, worker] : candidates) {
    if (drained >= most) return;
    if (!may_drain(*worker)) continue;
    ++drained;
    Tally& tally = tallies_[worker->group];
    --tally.staying;
    --tally.ready;
    out_.decisions.push_back({.kind = ScalingDecision::Kind::kDrain,
                              .group = worker->group,
                              .instance = worker->instance,
                              .worker = worker->view.id,
                              .cause = "idle",
                              .reason = fmt::format("nothing has run there for {} s", worker->idle_ms / 1000)});
  }
}

}  // namespace uccp::tasks
