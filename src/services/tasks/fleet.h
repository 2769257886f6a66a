// The workers as the scheduler sees them: what each has and has left, and the best one for a demand without looking at
// all.
//
// Pure memory, no clock; the same calls in the same order give the same answers.
//
// Amounts are columns, one a resource ("dimension": CPU, memory, ..., attempts at a time, and each counted name), with
// a row for each worker (worker_amounts.h). Two things are kept so that a search is short:
//  - for each dimension a fit index: workers of like size are a lane, and a lane sorts them into 64 buckets by the
//    share of the dimension that is left. A search goes by the dimension in which the fewest workers may hold the
//    demand, which is what is scarce in the lane: workers in lower buckets cannot hold it, the first ones from there on
//    mostly can, and are the tightest fit;
//  - for each set of conditions (labels, taints, kinds of devices), which workers meet them and how gladly each is
//  taken.
// A search costs by lanes and by the few workers that are looked at; only a demand for which these do not do makes it
// look at all. So among more than 128 workers of a rank, a worse rank is taken when the first looks at the better one
// found none.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/huge_allocator.h"
#include "call/listing.h"
#include "services/tasks/shapes.h"
#include "services/tasks/worker_amounts.h"

namespace uccp::tasks {

inline constexpr WorkerSlot kNoWorker = std::numeric_limits<WorkerSlot>::max();

struct Need {
  Dimension dimension = 0;
  int64_t amount = 0;
  bool operator==(const Need&) const = default;
};
// By dimension. One attempt is always among them.
using Needs = std::vector<Need>;
// Adds so many times the needs to the sum.
void add_needs(Needs& sum, const Needs& more, int64_t times = 1);

// What keeps a task from a worker.
enum class Obstacle : uint8_t {
  kNone,
  kNotConnected,
  kCordoned,
  kLabels,
  kTooSmall,
  kBusy,
  kSlots,
  kTaints,
  kReserved,
  kNear,
  kQuota,
};
inline constexpr size_t kObstacles = 11;

class Fleet {
  struct Feasible;

 public:
  // A demand that is searched for again and again.
  class Asked {
   public:
    explicit Asked(Demand demand, Fleet& fleet)
        : demand_(std::move(demand)), needs_(fleet.needs_of(searched_shape(demand_.shape))) {}
    const Demand& demand() const { return demand_; }
    // What a worker must have free for it. For a share of a device this is a whole one, which is to be opened.
    const Needs& needs() const { return needs_; }

   private:
    friend class Fleet;
    Demand demand_;
    Needs needs_;
    // Where the fleet keeps what belongs to it, as of a generation of its caches.
    Feasible* feasible_ = nullptr;
    uint64_t generation_ = 0;
  };

  explicit Fleet(Packing packing = Packing::kTight);

  // Adds or changes a worker; what is in use there stays in use.
  WorkerSlot set(const WorkerView& view);
  void remove(WorkerSlot slot);
  WorkerSlot find(const std::string& id) const;
  const WorkerView& view(WorkerSlot slot) const { return views_[slot]; }
  // No worker is in a slot that was removed.
  bool exists(WorkerSlot slot) const { return states_[slot].exists; }
  size_t slots_end() const { return views_.size(); }
  size_t size() const { return by_id_.size(); }
  const std::map<std::string, WorkerSlot>& by_id() const { return by_id_; }

  Needs needs_of(const Shape& shape);
  // One graphics processor and nothing else.
  static const Needs& one_gpu();
  int64_t free_gpus(WorkerSlot slot) const;
  int64_t gpus(WorkerSlot slot) const;
  size_t dimensions() const { return total_.size(); }
  // Of all workers together.
  int64_t total(Dimension dimension) const { return total_[dimension]; }
  Shape used(WorkerSlot slot) const;
  Shape total_capacity() const;
  Shape total_used() const;
  void take(WorkerSlot slot, const Needs& needs) { move(slot, needs, -1); }
  void give(WorkerSlot slot, const Needs& needs) {
    move(slot, needs, 1);
    note_freed(slot);
  }
  // The end of a take() that was only tried: nothing has got more room by it.
  void give_back(WorkerSlot slot, const Needs& needs) { move(slot, needs, 1); }
  // Keeps a worker out of searches, whoever asks: it is held for something.
  void hold(WorkerSlot slot, bool held);
  bool held(WorkerSlot slot) const { return states_[slot].held; }

  // What is known of the worker is asked for soon: with ten thousand of them it is not in the cache.
  void prefetch(WorkerSlot slot) const {
    amounts_.prefetch_to_move(slot);
    __builtin_prefetch(&views_[slot]);
  }

  // It exists, is connected and accepts tasks.
  bool open(WorkerSlot slot) const { return states_[slot].open; }
  bool fits(WorkerSlot slot, const Needs& needs) const;
  // Whether it would, if nothing ran there.
  bool fits_empty(WorkerSlot slot, const Needs& needs) const;
  // True if the worker meets all conditions but those of free room and of near tasks.
  bool meets(WorkerSlot slot, Asked& asked);
  int64_t free(WorkerSlot slot, Dimension dimension) const { return amounts_.free(slot, dimension); }
  int64_t capacity(WorkerSlot slot, Dimension dimension) const { return amounts_.capacity(slot, dimension); }

  // The best worker: of those that are taken most gladly, the one that is left with least (or, spread, with most).
  // `allowed` may refuse workers. kNoWorker if there is none.
  using Allowed = std::function<bool(WorkerSlot)>;
  WorkerSlot pick(Asked& asked, const Allowed& allowed = nullptr);
  // The share of the worker that is left, in the scarcest resource that is needed, once the needs are taken; less than
  // nothing if they do not fit.
  double left(WorkerSlot slot, const Needs& needs) const;
  // Whether pick() would rather take `a` than `b`, both being fit.
  bool better(WorkerSlot a, WorkerSlot b, Asked& asked);
  // What is in the way there, the first thing in the order in which people mend them.
  Obstacle obstacle(WorkerSlot slot, Asked& asked);

  // Workers that have more room, or another description, than when this was asked last.
  std::vector<WorkerSlot> take_freed();
  // Counts the worker among them.
  void note_freed(WorkerSlot slot);

 private:
  static constexpr size_t kBuckets = 64;
  // What a search asks of each worker, apart from what is long.
  struct State {
    uint32_t lane = 0;
    bool exists = false;
    bool open = false;
    bool held = false;
    bool freed = false;
  };
  struct Lane {
    std::array<std::vector<WorkerSlot>, kBuckets> buckets;
    std::array<uint32_t, kBuckets> sizes{};
    uint64_t occupied = 0;
  };
  // Workers by what is left of a dimension; those that have nothing of it are not in it.
  struct FitIndex {
    std::vector<Lane> lanes;
  };
  // Most capacity in each dimension of the workers that ever were in a lane.
  struct LaneBounds {
    std::vector<int64_t> most;
  };
  struct Entry {
    Dimension dimension = 0;
    size_t bucket = 0;
  };
  struct Conditions {
    LabelMap selector;
    std::vector<std::string> required;
    std::vector<std::pair<std::string, int32_t>> preferred;
    Marks tolerations;
    GpuNeed gpu;
    int64_t gpus = 0;
    bool devices = false;  // asks for any
    bool preemptible = false;
    auto operator<=>(const Conditions&) const = default;
  };
  // Conditions, ready to be asked. A rank is how gladly a worker is taken: lower is better.
  struct RankRule {
    static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
    explicit RankRule(const Conditions& conditions);
    int64_t operator()(const WorkerView& view) const;

    Conditions conditions;
    std::vector<call::LabelSelector> required;
    std::vector<std::pair<call::LabelSelector, int64_t>> preferred;
  };
  struct Ranked {
    std::set<WorkerSlot> workers;
    std::vector<uint32_t> in_lane;  // how many of them
  };
  // Which workers meet conditions.
  struct Feasible {
    explicit Feasible(const Conditions& conditions) : rule(conditions) {}
    RankRule rule;
    std::vector<int64_t> rank;
    std::map<int64_t, Ranked> by_rank;
    uint64_t last_used = 0;
  };
  struct Search {
    const Needs& needs;
    const Feasible& feasible;
    int64_t rank;
    const Allowed& allowed;
    WorkerSlot best = kNoWorker;
    double best_left = 0;
  };

  static Shape searched_shape(Shape shape);
  template <typename Amount>
  Shape shape_by(const Amount& amount) const;
  Dimension dimension_of(const std::string& name);
  void move(WorkerSlot slot, const Needs& needs, int64_t sign);
  void set_amounts(WorkerSlot slot, const WorkerView& view);
  uint32_t lane_of(const WorkerView& view);
  size_t bucket_of(WorkerSlot slot, Dimension dimension) const;
  void place(Dimension dimension, WorkerSlot slot);
  void displace(Dimension dimension, WorkerSlot slot);
  void index_all(const Needs& needs);
  void prepare(Asked& asked);
  static Conditions conditions_of(const Demand& demand);
  Feasible& feasible_of(const Demand& demand);
  void set_rank(Feasible& feasible, WorkerSlot slot, int64_t rank) const;

  bool consider(Search& search, WorkerSlot slot) const;
  std::optional<Entry> entry_of(const Needs& needs, size_t lane) const;
  void prefetch(const Search& search, WorkerSlot slot) const {
    __builtin_prefetch(&search.feasible.rank[slot]);
    amounts_.prefetch(slot);
  }
  void search_lane(Search& search, const Lane& lane, size_t first, size_t looks_max) const;
  void search_lanes(Search& search, const Ranked& ranked, size_t looks_max) const;

  const Packing packing_;
  std::vector<WorkerView, HugeAllocator<WorkerView>> views_;  // by slot, as all that follows
  std::vector<State> states_;
  WorkerAmounts amounts_;
  std::vector<WorkerSlot> vacant_;
  std::map<std::string, WorkerSlot> by_id_;
  std::map<std::string, Dimension> counted_;
  std::vector<int64_t> total_, total_free_;  // by dimension
  std::map<std::array<int64_t, 3>, uint32_t> lanes_;
  std::vector<LaneBounds> bounds_;
  std::vector<FitIndex> fit_;  // by dimension
  std::map<Conditions, Feasible> feasible_;
  uint64_t uses_ = 0;
  uint64_t generation_ = 1;  // grows when a cache drops something
  std::vector<WorkerSlot> freed_;
};

}  // namespace uccp::tasks
