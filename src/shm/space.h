// Which parts of a segment are taken: best fit, neighbours that are free are one, and what was used before comes first,
// since its memory is there already.
// Thread: one.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>

namespace uccp::shm {

class Space {
 public:
  explicit Space(uint64_t size);

  // Offset of `size` bytes, a multiple of kAlignment; nothing if no free part is so large. Requires size > 0.
  std::optional<uint64_t> take(uint64_t size);
  // Requires that exactly this was taken.
  void give_back(uint64_t offset, uint64_t size);

  uint64_t taken() const { return taken_; }
  uint64_t largest_free() const { return by_size_.empty() ? 0 : by_size_.rbegin()->first; }
  // Free parts, by their offsets.
  const std::map<uint64_t, uint64_t>& free_parts() const { return free_; }

  static uint64_t rounded(uint64_t size);

 private:
  void add(uint64_t offset, uint64_t size);
  void drop(std::map<uint64_t, uint64_t>::iterator part);

  std::map<uint64_t, uint64_t> free_;                // size by offset
  std::set<std::pair<uint64_t, uint64_t>> by_size_;  // (size, offset)
  uint64_t taken_ = 0;
};

}  // namespace uccp::shm
