#include "services/tasks/worker_amounts.h"

#include <algorithm>

namespace uccp::tasks {

WorkerAmounts::WorkerAmounts(size_t dimensions)
    : dimensions_(dimensions), stride_((dimensions + kInLine - 1) / kInLine) {}

void WorkerAmounts::add_dimension() {
  if (++dimensions_ > dimensions_max()) widen(stride_ * 2);
}

void WorkerAmounts::widen(size_t stride) {
  const size_t slots = lines_.size() / stride_, had = dimensions_max();
  std::vector<Line> lines(slots * stride);
  std::vector<Spot> spots(slots * stride * kInLine);
  for (size_t slot = 0; slot < slots; ++slot) {
    std::copy_n(&lines_[slot * stride_], stride_, &lines[slot * stride]);
    std::copy_n(&spots_[slot * had], had, &spots[slot * stride * kInLine]);
  }
  lines_ = std::move(lines);
  spots_ = std::move(spots);
  stride_ = stride;
  std::map<std::vector<int64_t>, Kind> kinds;
  capacities_.resize(capacities_.size() / had * dimensions_max());
  for (auto& [amounts, kind] : kinds_) {
    std::vector<int64_t> wide = amounts;
    wide.resize(dimensions_max());
    std::ranges::copy(wide, capacities_.begin() + static_cast<ptrdiff_t>(kind.number * dimensions_max()));
    kinds.emplace(std::move(wide), kind);
  }
  kinds_ = std::move(kinds);
}

void WorkerAmounts::add_slot() {
  lines_.resize(lines_.size() + stride_);
  spots_.resize(spots_.size() + dimensions_max());
  lines_[lines_.size() - stride_].kind = join_kind(std::vector<int64_t>(dimensions_max()));
}

std::vector<int64_t> WorkerAmounts::capacities_of(WorkerSlot slot) const {
  const auto begin = capacities_.begin() + static_cast<ptrdiff_t>(lines_[slot * stride_].kind * dimensions_max());
  return {begin, begin + static_cast<ptrdiff_t>(dimensions_max())};
}

uint64_t WorkerAmounts::join_kind(std::vector<int64_t> amounts) {
  const auto [it, is_new] = kinds_.try_emplace(std::move(amounts));
  Kind& kind = it->second;
  ++kind.workers;
  if (!is_new) return kind.number;
  if (vacant_kinds_.empty()) {
    vacant_kinds_.push_back(capacities_.size() / dimensions_max());
    capacities_.resize(capacities_.size() + dimensions_max());
  }
  kind.number = vacant_kinds_.back();
  vacant_kinds_.pop_back();
  std::ranges::copy(it->first, capacities_.begin() + static_cast<ptrdiff_t>(kind.number * dimensions_max()));
  return kind.number;
}

void WorkerAmounts::leave_kind(WorkerSlot slot) {
  const auto it = kinds_.find(capacities_of(slot));
  if (--it->second.workers > 0) return;
  vacant_kinds_.push_back(it->second.number);
  kinds_.erase(it);
}

void WorkerAmounts::set_capacity(WorkerSlot slot, const std::vector<int64_t>& amounts) {
  for (Dimension d = 0; d < dimensions_; ++d) add_free(slot, d, amounts[d] - capacity(slot, d));
  std::vector<int64_t> wide = amounts;
  wide.resize(dimensions_max());
  leave_kind(slot);
  lines_[slot * stride_].kind = join_kind(std::move(wide));
}

void WorkerAmounts::clear(WorkerSlot slot) {
  set_capacity(slot, std::vector<int64_t>(dimensions_));
  for (Dimension d = 0; d < dimensions_; ++d) {
    add_free(slot, d, -free(slot, d));
    spot(slot, d) = {};
  }
}

}  // namespace uccp::tasks
