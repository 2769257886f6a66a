#include "services/tasks/fleet.h"

#include <algorithm>
#include <array>
#include <bit>

#include "base/check.h"

namespace uccp::tasks {
namespace {

enum Fixed : Dimension { kSlots, kCpu, kMemory, kDisk, kGpus, kNetwork, kFirstCounted };

// At most this many sets of conditions are kept; the one that was used longest ago goes, and is made again when it is
// asked for.
constexpr size_t kFeasibleMax = 256;
// Workers of a rank up to this many are looked at one by one.
constexpr size_t kFewWorkers = 128;
// Workers of a lane that are looked at, the first time, the second, and at last.
constexpr std::array<size_t, 3> kLooksMax = {12, 256, std::numeric_limits<size_t>::max()};
// Workers of one bucket that are compared; they differ by less than a bucket's width.
constexpr size_t kComparedMax = 8;
// A tolerable taint that says "rather not" weighs more than all wishes of a task together.
constexpr int64_t kPreferNotRank = 1'000'000;
// Devices that a task does not ask for are kept for those that do, when nothing else decides.
constexpr int64_t kUnaskedDevicesRank = 1;
constexpr int64_t kWishRank = 10;

int64_t amount_of(const Shape& shape, Dimension dimension) {
  switch (dimension) {
    case kCpu: return shape.cpu_milli;
    case kMemory: return shape.memory;
    case kDisk: return shape.disk;
    case kGpus: return shape.gpus;
    case kNetwork: return shape.network_bps;
    default: return 0;
  }
}

bool has_gpus(const GpuNeed& need, int64_t count, const std::vector<GpuKind>& kinds) {
  if (count == 0 || (need.type.empty() && need.memory == 0)) return true;
  return std::ranges::any_of(kinds, [&](const GpuKind& kind) {
    return kind.type.starts_with(need.type) && kind.memory >= need.memory && kind.count >= count;
  });
}

bool has_labels(const LabelMap& wanted, const LabelMap& labels) {
  return std::ranges::all_of(wanted, [&](const auto& one) {
    const auto it = labels.find(one.first);
    return it != labels.end() && it->second == one.second;
  });
}

bool has_taint(const Marks& taints, const Marks& tolerations, bool preferred) {
  return std::ranges::any_of(taints, [&](const Mark& taint) {
    return (taint.kind == TaintKind::kPreferNot) == preferred && !tolerates(tolerations, taint);
  });
}

bool has_devices(const Shape& shape) {
  return shape.gpus > 0 ||
         std::ranges::any_of(shape.counted, [](const auto& one) { return one.first.starts_with("accelerator "); });
}

// Half octaves, so that machines of nearly the same size are one.
int64_t size_class(int64_t amount) {
  if (amount <= 0) return 0;
  const auto width = static_cast<int64_t>(std::bit_width(static_cast<uint64_t>(amount)));
  const bool upper = width >= 2 && ((amount >> (width - 2)) & 1) != 0;
  return width * 2 + (upper ? 1 : 0);
}

}  // namespace

Fleet::RankRule::RankRule(const Conditions& of) : conditions(of) {
  for (const std::string& text : of.required) {
    auto selector = call::LabelSelector::compile(text);
    UCCP_CHECK(selector.has_value(), "selectors were checked when the task was accepted");
    required.push_back(std::move(*selector));
  }
  for (const auto& [text, weight] : of.preferred) {
    auto selector = call::LabelSelector::compile(text);
    UCCP_CHECK(selector.has_value(), "selectors were checked when the task was accepted");
    preferred.emplace_back(std::move(*selector), weight);
  }
}

int64_t Fleet::RankRule::operator()(const WorkerView& view) const {
  const Conditions& c = conditions;
  if (!has_labels(c.selector, view.labels) || has_taint(view.taints, c.tolerations, false) ||
      !has_gpus(c.gpu, c.gpus, view.gpus)) {
    return kNever;
  }
  for (const auto& selector : required) {
    if (!selector.matches(view.labels)) return kNever;
  }
  int64_t rank = has_taint(view.taints, c.tolerations, true) ? kPreferNotRank : 0;
  for (const auto& [selector, weight] : preferred) {
    if (!selector.matches(view.labels)) rank += kWishRank * weight;
  }
  if (!c.devices && has_devices(view.capacity)) rank += kUnaskedDevicesRank;
  return rank;
}

Fleet::Fleet(Packing packing)
    : packing_(packing),
      capacity_(kFirstCounted),
      free_(kFirstCounted),
      total_(kFirstCounted),
      total_free_(kFirstCounted) {}

Dimension Fleet::dimension_of(const std::string& name) {
  const auto [it, is_new] = counted_.try_emplace(name, static_cast<Dimension>(kFirstCounted + counted_.size()));
  if (is_new) {
    capacity_.emplace_back(rows_.size(), 0);
    free_.emplace_back(rows_.size(), 0);
    total_.push_back(0);
    total_free_.push_back(0);
  }
  return it->second;
}

Needs Fleet::needs_of(const Shape& shape) {
  Needs needs = {{kSlots, 1}};
  for (Dimension d = kCpu; d < kFirstCounted; ++d) {
    if (const int64_t amount = amount_of(shape, d); amount > 0) needs.push_back({d, amount});
  }
  for (const auto& [name, amount] : shape.counted) needs.push_back({dimension_of(name), amount});
  std::ranges::sort(needs, {}, &Need::dimension);
  return needs;
}

WorkerSlot Fleet::find(const std::string& id) const {
  const auto it = by_id_.find(id);
  return it == by_id_.end() ? kNoWorker : it->second;
}

WorkerSlot Fleet::set(const WorkerView& view) {
  for (const auto& [name, amount] : view.capacity.counted) dimension_of(name);
  auto [it, is_new] = by_id_.try_emplace(view.id, kNoWorker);
  if (is_new) {
    if (vacant_.empty()) {
      vacant_.push_back(static_cast<WorkerSlot>(rows_.size()));
      rows_.emplace_back();
      for (auto& column : capacity_) column.push_back(0);
      for (auto& column : free_) column.push_back(0);
    }
    it->second = vacant_.back();
    vacant_.pop_back();
    rows_[it->second].exists = true;
  }
  const WorkerSlot slot = it->second;
  for (Dimension d = 0; d < fit_.size(); ++d) displace(d, slot);
  set_amounts(slot, view);
  rows_[slot].view = view;
  rows_[slot].lane = lane_of(view);
  for (auto& [conditions, feasible] : feasible_) set_rank(feasible, slot, feasible.rule(view));
  for (Dimension d = 0; d < fit_.size(); ++d) place(d, slot);
  note_freed(slot);
  return slot;
}

void Fleet::set_amounts(WorkerSlot slot, const WorkerView& view) {
  const auto change = [&](Dimension d, int64_t now) {
    const int64_t more = now - capacity_[d][slot];
    capacity_[d][slot] += more;
    free_[d][slot] += more;
    total_[d] += more;
    total_free_[d] += more;
  };
  for (Dimension d = 0; d < kFirstCounted; ++d) {
    change(d, d == kSlots ? static_cast<int64_t>(view.slots) : amount_of(view.capacity, d));
  }
  for (const auto& [name, dimension] : counted_) {
    const auto found = view.capacity.counted.find(name);
    change(dimension, found == view.capacity.counted.end() ? 0 : found->second);
  }
}

void Fleet::remove(WorkerSlot slot) {
  for (Dimension d = 0; d < fit_.size(); ++d) displace(d, slot);
  for (auto& [conditions, feasible] : feasible_) set_rank(feasible, slot, RankRule::kNever);
  for (Dimension d = 0; d < capacity_.size(); ++d) {
    total_[d] -= capacity_[d][slot];
    total_free_[d] -= free_[d][slot];
    capacity_[d][slot] = 0;
    free_[d][slot] = 0;
  }
  by_id_.erase(rows_[slot].view.id);
  rows_[slot] = {};
  vacant_.push_back(slot);
}

uint32_t Fleet::lane_of(const WorkerView& view) {
  const std::array key = {size_class(view.capacity.cpu_milli), size_class(view.capacity.memory),
                          size_class(view.capacity.gpus)};
  const auto [it, is_new] = lanes_.try_emplace(key, static_cast<uint32_t>(lanes_.size()));
  if (is_new) bounds_.emplace_back();
  LaneBounds& bounds = bounds_[it->second];
  bounds.most.resize(capacity_.size(), 0);
  const WorkerSlot slot = by_id_.at(view.id);
  for (Dimension d = 0; d < capacity_.size(); ++d) {
    bounds.most[d] = std::max(bounds.most[d], capacity_[d][slot]);
  }
  return it->second;
}

void Fleet::move(WorkerSlot slot, const Needs& needs, int64_t sign) {
  for (const Need& need : needs) {
    free_[need.dimension][slot] += sign * need.amount;
    total_free_[need.dimension] += sign * need.amount;
    if (need.dimension >= fit_.size()) continue;
    const Place at = place_of(need.dimension, slot);
    if (!at.present || bucket_of(need.dimension, slot) == at.bucket) continue;
    displace(need.dimension, slot);
    place(need.dimension, slot);
  }
  if (sign > 0) note_freed(slot);
}

void Fleet::note_freed(WorkerSlot slot) {
  if (std::exchange(rows_[slot].freed, true)) return;
  freed_.push_back(slot);
}

std::vector<WorkerSlot> Fleet::take_freed() {
  for (const WorkerSlot slot : freed_) rows_[slot].freed = false;
  return std::exchange(freed_, {});
}

void Fleet::hold(WorkerSlot slot, bool held) {
  if (rows_[slot].held == held) return;
  for (Dimension d = 0; d < fit_.size(); ++d) displace(d, slot);
  rows_[slot].held = held;
  for (Dimension d = 0; d < fit_.size(); ++d) place(d, slot);
  if (!held) note_freed(slot);
}

// --- fit indexes

size_t Fleet::bucket_of(Dimension d, WorkerSlot slot) const {
  const int64_t bucket = free_[d][slot] * static_cast<int64_t>(kBuckets) / capacity_[d][slot];
  return static_cast<size_t>(std::clamp<int64_t>(bucket, 0, kBuckets - 1));
}

Fleet::Place Fleet::place_of(Dimension d, WorkerSlot slot) const {
  return slot < fit_[d].places.size() ? fit_[d].places[slot] : Place{};
}

void Fleet::place(Dimension d, WorkerSlot slot) {
  if (!open(slot) || rows_[slot].held || capacity_[d][slot] <= 0) return;
  FitIndex& index = fit_[d];
  if (index.places.size() < rows_.size()) index.places.resize(rows_.size());
  const uint32_t lane = rows_[slot].lane;
  if (index.lanes.size() <= lane) index.lanes.resize(lane + 1);
  const size_t bucket = bucket_of(d, slot);
  auto& workers = index.lanes[lane].buckets[bucket];
  index.places[slot] = {true, static_cast<uint8_t>(bucket), lane, static_cast<uint32_t>(workers.size())};
  workers.push_back(slot);
  index.lanes[lane].occupied |= uint64_t{1} << bucket;
}

void Fleet::displace(Dimension d, WorkerSlot slot) {
  const Place at = place_of(d, slot);
  if (!at.present) return;
  FitIndex& index = fit_[d];
  Lane& lane = index.lanes[at.lane];
  auto& workers = lane.buckets[at.bucket];
  workers[at.position] = workers.back();
  index.places[workers[at.position]].position = at.position;
  workers.pop_back();
  index.places[slot] = {};
  if (workers.empty()) lane.occupied &= ~(uint64_t{1} << at.bucket);
}

void Fleet::index_all(const Needs& needs) {
  const Dimension last = needs.back().dimension;
  while (fit_.size() <= last) {
    fit_.emplace_back();
    for (WorkerSlot slot = 0; slot < rows_.size(); ++slot) place(static_cast<Dimension>(fit_.size() - 1), slot);
  }
}

// --- conditions

Fleet::Conditions Fleet::conditions_of(const Demand& demand) {
  const bool picky = !demand.gpu.type.empty() || demand.gpu.memory > 0;
  return {demand.selector,          demand.required, demand.preferred,
          demand.tolerations,       demand.gpu,      picky ? demand.shape.gpus : 0,
          has_devices(demand.shape)};
}

void Fleet::set_rank(Feasible& feasible, WorkerSlot slot, int64_t rank) {
  if (feasible.rank.size() <= slot) feasible.rank.resize(slot + 1, RankRule::kNever);
  if (feasible.rank[slot] == rank) return;
  if (const auto old = feasible.by_rank.find(feasible.rank[slot]); old != feasible.by_rank.end()) {
    old->second.erase(slot);
    if (old->second.empty()) feasible.by_rank.erase(old);
  }
  feasible.rank[slot] = rank;
  if (rank != RankRule::kNever) feasible.by_rank[rank].insert(slot);
}

Fleet::Feasible& Fleet::feasible_of(const Demand& demand) {
  const Conditions conditions = conditions_of(demand);
  auto found = feasible_.find(conditions);
  if (found == feasible_.end()) {
    if (feasible_.size() >= kFeasibleMax) {
      feasible_.erase(std::ranges::min_element(feasible_, {}, [](const auto& one) { return one.second.last_used; }));
      ++generation_;
    }
    found = feasible_.try_emplace(conditions, conditions).first;
    for (const auto& [id, slot] : by_id_) set_rank(found->second, slot, found->second.rule(rows_[slot].view));
  }
  found->second.last_used = ++uses_;
  return found->second;
}

void Fleet::prepare(Asked& asked) {
  if (asked.generation_ == generation_) {
    asked.feasible_->last_used = ++uses_;
    return;
  }
  asked.feasible_ = &feasible_of(asked.demand_);
  asked.generation_ = generation_;
  index_all(asked.needs_);
}

bool Fleet::meets(WorkerSlot slot, Asked& asked) {
  prepare(asked);
  const Feasible& feasible = *asked.feasible_;
  return slot < feasible.rank.size() && feasible.rank[slot] != RankRule::kNever;
}

// --- search

bool Fleet::fits(WorkerSlot slot, const Needs& needs) const {
  return std::ranges::all_of(needs, [&](const Need& n) { return n.amount <= free_[n.dimension][slot]; });
}

bool Fleet::fits_empty(WorkerSlot slot, const Needs& needs) const {
  return std::ranges::all_of(needs, [&](const Need& n) { return n.amount <= capacity_[n.dimension][slot]; });
}

double Fleet::left(WorkerSlot slot, const Needs& needs) const {
  double least = 1;
  for (const Need& need : needs) {
    const int64_t all = capacity_[need.dimension][slot];
    if (all > 0) {
      least =
          std::min(least, static_cast<double>(free_[need.dimension][slot] - need.amount) / static_cast<double>(all));
    }
  }
  return least;
}

// Takes the worker if it fits and is better than the best so far. True if it fits.
bool Fleet::consider(Search& search, WorkerSlot slot) const {
  if (search.feasible.rank[slot] != search.rank || !fits(slot, search.needs)) return false;
  if (search.allowed && !search.allowed(slot)) return false;
  const double left_here = left(slot, search.needs);
  const bool better = packing_ == Packing::kTight ? left_here < search.best_left : left_here > search.best_left;
  if (search.best == kNoWorker || better || (left_here == search.best_left && slot < search.best)) {
    search.best = slot;
    search.best_left = left_here;
  }
  return true;
}

// Where in a lane a search begins: what the needs take the largest share of decides, and in which bucket a worker may
// fit first. Nothing if no worker of the lane can hold them.
std::optional<Fleet::Entry> Fleet::entry_of(const Needs& needs, const LaneBounds& bounds) {
  Entry entry;
  double largest = -1;
  for (const Need& need : needs) {
    if (need.dimension >= bounds.most.size() || need.amount > bounds.most[need.dimension]) return std::nullopt;
    const int64_t most = bounds.most[need.dimension];
    const double share = static_cast<double>(need.amount) / static_cast<double>(most);
    if (share <= largest) continue;
    largest = share;
    entry = {need.dimension,
             static_cast<size_t>(std::min<int64_t>(need.amount * static_cast<int64_t>(kBuckets) / most, kBuckets - 1))};
  }
  return entry;
}

// Looks into the buckets from `first` up, the tightest (or the emptiest) before the others, until one has a worker that
// fits.
void Fleet::search_lane(Search& search, const Lane& lane, size_t first, size_t looks_max) const {
  for (uint64_t rest = lane.occupied & ~uint64_t{0} << first; rest != 0;) {
    const auto bucket = packing_ == Packing::kTight ? static_cast<size_t>(std::countr_zero(rest))
                                                    : kBuckets - 1 - static_cast<size_t>(std::countl_zero(rest));
    rest &= ~(uint64_t{1} << bucket);
    size_t compared = 0;
    for (const WorkerSlot slot : lane.buckets[bucket]) {
      if (looks_max-- == 0) return;
      if (consider(search, slot) && ++compared == kComparedMax) return;
    }
    if (compared > 0) return;
  }
}

void Fleet::search_lanes(Search& search, size_t looks_max) const {
  for (size_t lane = 0; lane < bounds_.size(); ++lane) {
    const auto entry = entry_of(search.needs, bounds_[lane]);
    if (!entry || lane >= fit_[entry->dimension].lanes.size()) continue;
    search_lane(search, fit_[entry->dimension].lanes[lane], entry->bucket, looks_max);
  }
}

// First a little everywhere, the ranks in their order; all is looked at only when that found nothing at all.
WorkerSlot Fleet::pick(Asked& asked, const Allowed& allowed) {
  if (rows_.empty()) return kNoWorker;
  prepare(asked);
  for (const size_t looks_max : kLooksMax) {
    for (const auto& [rank, workers] : asked.feasible_->by_rank) {
      Search search{asked.needs_, *asked.feasible_, rank, allowed};
      if (workers.size() > kFewWorkers) {
        search_lanes(search, looks_max);
      } else {
        for (const WorkerSlot slot : workers) {
          if (open(slot) && !rows_[slot].held) consider(search, slot);
        }
      }
      if (search.best != kNoWorker) return search.best;
    }
  }
  return kNoWorker;
}

bool Fleet::better(WorkerSlot a, WorkerSlot b, Asked& asked) {
  prepare(asked);
  const auto rank = [&](WorkerSlot slot) { return asked.feasible_->rank[slot]; };
  if (rank(a) != rank(b)) return rank(a) < rank(b);
  const double left_a = left(a, asked.needs_);
  const double left_b = left(b, asked.needs_);
  return packing_ == Packing::kTight ? left_a < left_b : left_a > left_b;
}

Obstacle Fleet::obstacle(WorkerSlot slot, Asked& asked) {
  prepare(asked);
  const Demand& demand = asked.demand_;
  const WorkerView& view = rows_[slot].view;
  if (!view.connected) return Obstacle::kNotConnected;
  if (!view.accepts) return Obstacle::kCordoned;
  const RankRule& rule = asked.feasible_->rule;
  if (!has_labels(demand.selector, view.labels) ||
      !std::ranges::all_of(rule.required, [&](const auto& one) { return one.matches(view.labels); })) {
    return Obstacle::kLabels;
  }
  if (has_taint(view.taints, demand.tolerations, false)) return Obstacle::kTaints;
  const Needs& needs = asked.needs_;
  const bool large_enough = std::ranges::all_of(
      needs, [&](const Need& n) { return n.dimension == kSlots || n.amount <= capacity_[n.dimension][slot]; });
  if (!large_enough || !has_gpus(demand.gpu, demand.shape.gpus, view.gpus)) return Obstacle::kTooSmall;
  if (free_[kSlots][slot] < 1) return Obstacle::kSlots;
  if (!fits(slot, needs)) return Obstacle::kBusy;
  return rows_[slot].held ? Obstacle::kReserved : Obstacle::kNone;
}

// --- what is in use

template <typename Amount>
Shape Fleet::shape_by(const Amount& amount) const {
  Shape shape{amount(kCpu), amount(kMemory), amount(kDisk), amount(kGpus), amount(kNetwork), {}};
  for (const auto& [name, dimension] : counted_) {
    if (const int64_t there = amount(dimension); there != 0) shape.counted[name] = there;
  }
  return shape;
}

Shape Fleet::used(WorkerSlot slot) const {
  return shape_by([&](Dimension d) { return capacity_[d][slot] - free_[d][slot]; });
}

Shape Fleet::total_capacity() const {
  return shape_by([&](Dimension d) { return total_[d]; });
}

Shape Fleet::total_used() const {
  return shape_by([&](Dimension d) { return total_[d] - total_free_[d]; });
}

}  // namespace uccp::tasks
