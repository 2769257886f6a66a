// What each worker has of each dimension and what is left of it, laid out for searches.
//
// Among ten thousand workers, what a placement waits for is memory. So what is free on a worker stands in cache lines
// that hold nothing else, what it has is kept once for all workers that have the same, and where it stands in the fit
// indexes is apart, because only a change needs that.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

namespace uccp::tasks {

using Dimension = uint32_t;
using WorkerSlot = uint32_t;

class WorkerAmounts {
 public:
  // Where a worker stands in the fit index of a dimension.
  struct Spot {
    uint32_t position = 0;
    uint8_t bucket = 0;
    bool indexed = false;
  };

  explicit WorkerAmounts(size_t dimensions);

  size_t dimensions() const { return dimensions_; }
  // Different capacities that some worker has or had: how many rows of them are kept.
  size_t kinds() const { return capacities_.size() / dimensions_max(); }
  void add_dimension();
  // One more worker, which has nothing.
  void add_slot();

  int64_t free(WorkerSlot slot, Dimension d) const { return line_of(slot, d).amounts[d % kInLine]; }
  int64_t capacity(WorkerSlot slot, Dimension d) const {
    return capacities_[lines_[slot * stride_].kind * dimensions_max() + d];
  }
  // Amounts of all dimensions; what is free grows by what is had more.
  void set_capacity(WorkerSlot slot, const std::vector<int64_t>& amounts);
  // Returns what is free then.
  int64_t add_free(WorkerSlot slot, Dimension d, int64_t more) { return line_of(slot, d).amounts[d % kInLine] += more; }
  // Nothing is had and nothing is free.
  void clear(WorkerSlot slot);

  Spot& spot(WorkerSlot slot, Dimension d) { return spots_[slot * dimensions_max() + d]; }

  // What is free there is asked for soon.
  void prefetch(WorkerSlot slot) const { __builtin_prefetch(&lines_[slot * stride_]); }
  // The same, and it is going to be changed.
  void prefetch_to_move(WorkerSlot slot) const {
    prefetch(slot);
    __builtin_prefetch(&spots_[slot * dimensions_max()]);
  }

 private:
  static constexpr size_t kLineBytes = 64;
  static constexpr size_t kInLine = kLineBytes / sizeof(int64_t) - 1;
  struct alignas(kLineBytes) Line {
    uint64_t kind = 0;  // of a worker's first line: which capacities it has
    std::array<int64_t, kInLine> amounts{};
  };
  struct Kind {
    uint64_t number = 0;
    size_t workers = 0;
  };

  size_t dimensions_max() const { return stride_ * kInLine; }
  Line& line_of(WorkerSlot slot, Dimension d) { return lines_[slot * stride_ + d / kInLine]; }
  const Line& line_of(WorkerSlot slot, Dimension d) const { return lines_[slot * stride_ + d / kInLine]; }
  void widen(size_t stride);
  std::vector<int64_t> capacities_of(WorkerSlot slot) const;
  void leave_kind(WorkerSlot slot);
  uint64_t join_kind(std::vector<int64_t> amounts);

  size_t dimensions_ = 0;
  size_t stride_ = 1;  // lines of a worker
  std::vector<Line> lines_;
  std::vector<Spot> spots_;          // by worker and dimension
  std::vector<int64_t> capacities_;  // by kind and dimension
  std::map<std::vector<int64_t>, Kind> kinds_;
  std::vector<uint64_t> vacant_kinds_;
};

}  // namespace uccp::tasks
