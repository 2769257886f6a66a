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
// So many looks ahead a worker is fetched: what a look costs is the time until its amounts are there.
constexpr size_t kLooksAhead = 4;
// Workers of one bucket that are compared; they differ by less than a bucket's width.
constexpr size_t kComparedMax = 8;
// What makes a worker worse, each more than all that follow together: a tolerable taint that says "rather not"; that a
// task which must not be stopped may lose it at any moment; the wishes of the task; devices connected less well than
// others are; that it is kept for tasks that must not be stopped; that it has devices which the task does not ask for;
// its price.
constexpr int64_t kPreferNotRank = 100'000'000;
constexpr int64_t kSpotRank = 10'000'000;
constexpr int64_t kWishRank = 2'000;
constexpr int64_t kLinkRank = 300;
constexpr int64_t kNotSpotRank = 200;
constexpr int64_t kUnaskedDevicesRank = 100;
constexpr int64_t kPriceRankMax = 99;

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

bool fits_kind(const GpuNeed& need, int64_t count, const GpuKind& kind) {
  return kind.type.starts_with(need.type) && kind.memory >= need.memory && kind.link >= need.link &&
         kind.driver >= need.driver && kind.count >= count;
}

bool has_gpus(const GpuNeed& need, int64_t count, const std::vector<GpuKind>& kinds) {
  if (count == 0 || (count == 1 && need == GpuNeed{})) return true;
  return std::ranges::any_of(kinds, [&](const GpuKind& kind) { return fits_kind(need, count, kind); });
}

// How much the connection of the best devices for a task with several falls short of the best there is.
int64_t link_rank(const GpuNeed& need, int64_t count, const std::vector<GpuKind>& kinds) {
  if (count < 2) return 0;
  GpuLink best = GpuLink::kAny;
  for (const GpuKind& kind : kinds) {
    if (fits_kind(need, count, kind)) best = std::max(best, kind.link);
  }
  return static_cast<int64_t>(GpuLink::kNvlink) - static_cast<int64_t>(best);
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
  return shape.gpus > 0 || gpu_share(shape) > 0 ||
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

void add_needs(Needs& sum, const Needs& more, int64_t times) {
  for (const Need& need : more) {
    const auto same = std::ranges::find(sum, need.dimension, &Need::dimension);
    if (same == sum.end()) sum.push_back({need.dimension, times * need.amount});
    else same->amount += times * need.amount;
  }
}

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
  rank += kLinkRank * link_rank(c.gpu, c.gpus, view.gpus);
  if (view.spot != c.preemptible) rank += view.spot ? kSpotRank : kNotSpotRank;
  rank += std::min(kPriceRankMax, size_class(view.price));
  return rank;
}

Fleet::Fleet(Packing packing)
    : packing_(packing), amounts_(kFirstCounted), total_(kFirstCounted), total_free_(kFirstCounted) {}

Dimension Fleet::dimension_of(const std::string& name) {
  const auto [it, is_new] = counted_.try_emplace(name, static_cast<Dimension>(kFirstCounted + counted_.size()));
  if (is_new) {
    total_.push_back(0);
    total_free_.push_back(0);
    amounts_.add_dimension();
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

Shape Fleet::searched_shape(Shape shape) {
  if (gpu_share(shape) > 0) shape.gpus = 1;
  return shape;
}

const Needs& Fleet::one_gpu() {
  static const Needs needs = {{kGpus, 1}};
  return needs;
}

int64_t Fleet::free_gpus(WorkerSlot slot) const { return free(slot, kGpus); }
int64_t Fleet::gpus(WorkerSlot slot) const { return capacity(slot, kGpus); }

WorkerSlot Fleet::find(const std::string& id) const {
  const auto it = by_id_.find(id);
  return it == by_id_.end() ? kNoWorker : it->second;
}

WorkerSlot Fleet::set(const WorkerView& view) {
  for (const auto& [name, amount] : view.capacity.counted) dimension_of(name);
  auto [it, is_new] = by_id_.try_emplace(view.id, kNoWorker);
  if (is_new) {
    if (vacant_.empty()) {
      vacant_.push_back(static_cast<WorkerSlot>(views_.size()));
      views_.emplace_back();
      states_.emplace_back();
      amounts_.add_slot();
    }
    it->second = vacant_.back();
    vacant_.pop_back();
    states_[it->second].exists = true;
  }
  const WorkerSlot slot = it->second;
  for (Dimension d = 0; d < fit_.size(); ++d) displace(d, slot);
  set_amounts(slot, view);
  views_[slot] = view;
  states_[slot].open = view.connected && view.accepts;
  if (const uint32_t lane = lane_of(view); lane != states_[slot].lane) {
    // It is counted by lane as well.
    for (auto& [conditions, feasible] : feasible_) set_rank(feasible, slot, RankRule::kNever);
    states_[slot].lane = lane;
  }
  for (auto& [conditions, feasible] : feasible_) set_rank(feasible, slot, feasible.rule(view));
  for (Dimension d = 0; d < fit_.size(); ++d) place(d, slot);
  note_freed(slot);
  return slot;
}

void Fleet::set_amounts(WorkerSlot slot, const WorkerView& view) {
  std::vector<int64_t> amounts(dimensions());
  for (Dimension d = 0; d < kFirstCounted; ++d)
    amounts[d] = d == kSlots ? static_cast<int64_t>(view.slots) : amount_of(view.capacity, d);
  for (const auto& [name, amount] : view.capacity.counted) amounts[counted_.at(name)] = amount;
  for (Dimension d = 0; d < dimensions(); ++d) {
    const int64_t more = amounts[d] - capacity(slot, d);
    total_[d] += more;
    total_free_[d] += more;
  }
  amounts_.set_capacity(slot, amounts);
}

void Fleet::remove(WorkerSlot slot) {
  for (Dimension d = 0; d < fit_.size(); ++d) displace(d, slot);
  for (auto& [conditions, feasible] : feasible_) set_rank(feasible, slot, RankRule::kNever);
  for (Dimension d = 0; d < dimensions(); ++d) {
    total_[d] -= capacity(slot, d);
    total_free_[d] -= free(slot, d);
  }
  amounts_.clear(slot);
  by_id_.erase(views_[slot].id);
  views_[slot] = {};
  states_[slot] = {.freed = states_[slot].freed};
  vacant_.push_back(slot);
}

uint32_t Fleet::lane_of(const WorkerView& view) {
  const std::array key = {size_class(view.capacity.cpu_milli), size_class(view.capacity.memory),
                          size_class(view.capacity.gpus)};
  const auto [it, is_new] = lanes_.try_emplace(key, static_cast<uint32_t>(lanes_.size()));
  if (is_new) bounds_.emplace_back();
  LaneBounds& bounds = bounds_[it->second];
  bounds.most.resize(dimensions(), 0);
  const WorkerSlot slot = by_id_.at(view.id);
  for (Dimension d = 0; d < dimensions(); ++d) bounds.most[d] = std::max(bounds.most[d], capacity(slot, d));
  return it->second;
}

void Fleet::move(WorkerSlot slot, const Needs& needs, int64_t sign) {
  for (const Need& need : needs) {
    amounts_.add_free(slot, need.dimension, sign * need.amount);
    total_free_[need.dimension] += sign * need.amount;
    const WorkerAmounts::Spot& spot = amounts_.spot(slot, need.dimension);
    if (!spot.indexed || bucket_of(slot, need.dimension) == spot.bucket) continue;
    displace(need.dimension, slot);
    place(need.dimension, slot);
  }
}

void Fleet::note_freed(WorkerSlot slot) {
  if (std::exchange(states_[slot].freed, true)) return;
  freed_.push_back(slot);
}

std::vector<WorkerSlot> Fleet::take_freed() {
  for (const WorkerSlot slot : freed_) states_[slot].freed = false;
  return std::exchange(freed_, {});
}

void Fleet::hold(WorkerSlot slot, bool held) {
  if (states_[slot].held == held) return;
  for (Dimension d = 0; d < fit_.size(); ++d) displace(d, slot);
  states_[slot].held = held;
  for (Dimension d = 0; d < fit_.size(); ++d) place(d, slot);
  if (!held) note_freed(slot);
}

// --- fit indexes

size_t Fleet::bucket_of(WorkerSlot slot, Dimension d) const {
  const int64_t bucket = free(slot, d) * static_cast<int64_t>(kBuckets) / capacity(slot, d);
  return static_cast<size_t>(std::clamp<int64_t>(bucket, 0, kBuckets - 1));
}

void Fleet::place(Dimension d, WorkerSlot slot) {
  if (!open(slot) || held(slot) || capacity(slot, d) <= 0) return;
  FitIndex& index = fit_[d];
  const uint32_t lane_number = states_[slot].lane;
  if (index.lanes.size() <= lane_number) index.lanes.resize(lane_number + 1);
  Lane& lane = index.lanes[lane_number];
  const size_t bucket = bucket_of(slot, d);
  amounts_.spot(slot, d) = {static_cast<uint32_t>(lane.buckets[bucket].size()), static_cast<uint8_t>(bucket), true};
  lane.buckets[bucket].push_back(slot);
  ++lane.sizes[bucket];
  lane.occupied |= uint64_t{1} << bucket;
}

void Fleet::displace(Dimension d, WorkerSlot slot) {
  WorkerAmounts::Spot& at = amounts_.spot(slot, d);
  if (!at.indexed) return;
  Lane& lane = fit_[d].lanes[states_[slot].lane];
  auto& workers = lane.buckets[at.bucket];
  workers[at.position] = workers.back();
  amounts_.spot(workers[at.position], d).position = at.position;
  workers.pop_back();
  --lane.sizes[at.bucket];
  at.indexed = false;
  if (workers.empty()) lane.occupied &= ~(uint64_t{1} << at.bucket);
}

void Fleet::index_all(const Needs& needs) {
  const Dimension last = needs.back().dimension;
  while (fit_.size() <= last) {
    fit_.emplace_back();
    for (WorkerSlot slot = 0; slot < views_.size(); ++slot) place(static_cast<Dimension>(fit_.size() - 1), slot);
  }
}

// --- conditions

Fleet::Conditions Fleet::conditions_of(const Demand& demand) {
  const int64_t gpus = searched_shape(demand.shape).gpus;
  const bool picky = gpus > 1 || demand.gpu != GpuNeed{};
  return {demand.selector, demand.required,  demand.preferred,          demand.tolerations,
          demand.gpu,      picky ? gpus : 0, has_devices(demand.shape), demand.preemptible};
}

void Fleet::set_rank(Feasible& feasible, WorkerSlot slot, int64_t rank) const {
  if (feasible.rank.size() <= slot) feasible.rank.resize(slot + 1, RankRule::kNever);
  if (feasible.rank[slot] == rank) return;
  const uint32_t lane = states_[slot].lane;
  if (const auto old = feasible.by_rank.find(feasible.rank[slot]); old != feasible.by_rank.end()) {
    old->second.workers.erase(slot);
    --old->second.in_lane[lane];
    if (old->second.workers.empty()) feasible.by_rank.erase(old);
  }
  feasible.rank[slot] = rank;
  if (rank == RankRule::kNever) return;
  Ranked& ranked = feasible.by_rank[rank];
  ranked.workers.insert(slot);
  if (ranked.in_lane.size() <= lane) ranked.in_lane.resize(lane + 1);
  ++ranked.in_lane[lane];
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
    for (const auto& [id, slot] : by_id_) set_rank(found->second, slot, found->second.rule(views_[slot]));
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
  return std::ranges::all_of(needs, [&](const Need& n) { return n.amount <= free(slot, n.dimension); });
}

bool Fleet::fits_empty(WorkerSlot slot, const Needs& needs) const {
  return std::ranges::all_of(needs, [&](const Need& n) { return n.amount <= capacity(slot, n.dimension); });
}

double Fleet::left(WorkerSlot slot, const Needs& needs) const {
  double least = 1;
  for (const Need& need : needs) {
    if (const int64_t most = capacity(slot, need.dimension); most > 0)
      least =
          std::min(least, static_cast<double>(free(slot, need.dimension) - need.amount) / static_cast<double>(most));
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

// Where in a lane a search begins: in the dimension in which the fewest workers may hold the needs, at the bucket from
// which on they may. Nothing if none can.
std::optional<Fleet::Entry> Fleet::entry_of(const Needs& needs, size_t lane) const {
  std::optional<Entry> entry;
  const LaneBounds& bounds = bounds_[lane];
  uint32_t fewest = std::numeric_limits<uint32_t>::max();
  double largest = -1;
  for (const Need& need : needs) {
    if (need.dimension >= bounds.most.size() || need.amount > bounds.most[need.dimension]) return std::nullopt;
    if (lane >= fit_[need.dimension].lanes.size()) return std::nullopt;
    const int64_t most = bounds.most[need.dimension];
    const auto first =
        static_cast<size_t>(std::min<int64_t>(need.amount * static_cast<int64_t>(kBuckets) / most, kBuckets - 1));
    uint32_t eligible = 0;
    const auto& sizes = fit_[need.dimension].lanes[lane].sizes;
    for (size_t bucket = first; bucket < kBuckets; ++bucket) eligible += sizes[bucket];
    const double share = static_cast<double>(need.amount) / static_cast<double>(most);
    if (eligible > fewest || (eligible == fewest && share <= largest)) continue;
    fewest = eligible;
    largest = share;
    entry = {need.dimension, first};
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
    const auto& workers = lane.buckets[bucket];
    for (size_t i = 0; i < std::min(kLooksAhead, workers.size()); ++i) prefetch(search, workers[i]);
    for (size_t i = 0; i < workers.size(); ++i) {
      if (looks_max-- == 0) return;
      if (i + kLooksAhead < workers.size()) prefetch(search, workers[i + kLooksAhead]);
      if (consider(search, workers[i]) && ++compared == kComparedMax) return;
    }
    if (compared > 0) return;
  }
}

void Fleet::search_lanes(Search& search, const Ranked& ranked, size_t looks_max) const {
  for (size_t lane = 0; lane < ranked.in_lane.size(); ++lane) {
    if (ranked.in_lane[lane] == 0) continue;
    const auto entry = entry_of(search.needs, lane);
    if (!entry) continue;
    search_lane(search, fit_[entry->dimension].lanes[lane], entry->bucket, looks_max);
  }
}

// First a little everywhere, the ranks in their order; all is looked at only when that found nothing at all.
WorkerSlot Fleet::pick(Asked& asked, const Allowed& allowed) {
  if (views_.empty()) return kNoWorker;
  prepare(asked);
  for (const size_t looks_max : kLooksMax) {
    for (const auto& [rank, ranked] : asked.feasible_->by_rank) {
      Search search{asked.needs_, *asked.feasible_, rank, allowed};
      if (ranked.workers.size() > kFewWorkers) {
        search_lanes(search, ranked, looks_max);
      } else {
        for (const WorkerSlot slot : ranked.workers) {
          if (open(slot) && !held(slot)) consider(search, slot);
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
  const WorkerView& view = views_[slot];
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
      needs, [&](const Need& n) { return n.dimension == kSlots || n.amount <= capacity(slot, n.dimension); });
  if (!large_enough || !has_gpus(demand.gpu, searched_shape(demand.shape).gpus, view.gpus)) return Obstacle::kTooSmall;
  if (free(slot, kSlots) < 1) return Obstacle::kSlots;
  if (!fits(slot, needs)) return Obstacle::kBusy;
  return held(slot) ? Obstacle::kReserved : Obstacle::kNone;
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
  return shape_by([&](Dimension d) { return capacity(slot, d) - free(slot, d); });
}

Shape Fleet::total_capacity() const {
  return shape_by([&](Dimension d) { return total_[d]; });
}

Shape Fleet::total_used() const {
  return shape_by([&](Dimension d) { return total_[d] - total_free_[d]; });
}

}  // namespace uccp::tasks
