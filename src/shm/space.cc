#include "shm/space.h"

#include "base/check.h"
#include "shm/layout.h"

namespace uccp::shm {

Space::Space(uint64_t size) { add(0, size / kAlignment * kAlignment); }

uint64_t Space::rounded(uint64_t size) { return (size + kAlignment - 1) / kAlignment * kAlignment; }

std::optional<uint64_t> Space::take(uint64_t size) {
  size = rounded(size);
  const auto found = by_size_.lower_bound({size, 0});
  if (found == by_size_.end()) return std::nullopt;
  const auto [had, offset] = *found;
  drop(free_.find(offset));
  if (had > size) add(offset + size, had - size);
  taken_ += size;
  return offset;
}

void Space::give_back(uint64_t offset, uint64_t size) {
  size = rounded(size);
  UCCP_CHECK(taken_ >= size, "space is given back that was not taken");
  taken_ -= size;
  const auto next = free_.lower_bound(offset);
  if (next != free_.end() && next->first == offset + size) {
    size += next->second;
    drop(next);
  }
  auto before = free_.lower_bound(offset);
  if (before != free_.begin() && (--before)->first + before->second == offset) {
    offset = before->first;
    size += before->second;
    drop(before);
  }
  add(offset, size);
}

void Space::add(uint64_t offset, uint64_t size) {
  if (size == 0) return;
  free_.emplace(offset, size);
  by_size_.emplace(size, offset);
}

void Space::drop(std::map<uint64_t, uint64_t>::iterator part) {
  by_size_.erase({part->second, part->first});
  free_.erase(part);
}

}  // namespace uccp::shm
