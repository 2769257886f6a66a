// The memory that the objects of a namespace are in: which parts are taken, and which have memory behind them.
//
// Memory is given to a part by its owner, not by the process that writes first: so it is not counted as that process'.
// It stays when a part is free again, and is reused while warm, until trim().
// Thread: one.
#pragma once

#include <string_view>
#include <vector>

#include "shm/shared_file.h"
#include "shm/space.h"

namespace uccp::shm {

// Memory of all segments of an agent together.
struct Budget {
  uint64_t bytes_max = 0;
  uint64_t bytes = 0;
};

class Segment {
 public:
  // `budget` must outlive it. Errors: those of SharedFile.
  static Result<Segment> create(uint64_t size, Budget& budget);
  Segment(Segment&& other) noexcept;
  Segment& operator=(Segment&&) = delete;
  ~Segment();

  // Offset of a part with memory behind it. Errors: exhausted SEGMENT_FULL, no free part is so large; exhausted
  // BUDGET_USED, other segments have the memory; unavailable MEMORY_MISSING, the machine has none.
  Result<uint64_t> take(uint64_t size);
  void give_back(uint64_t offset, uint64_t size) { space_.give_back(offset, size); }
  // Gives memory to the next part of what is free and has none, until so much that is free has some; false: there is
  // nothing more to do.
  bool prepare(uint64_t free_bytes);
  // Gives memory behind free parts back to the machine.
  void trim();

  int fd() const { return file_.fd.get(); }
  uint64_t size() const { return file_.memory.size(); }
  uint64_t taken() const { return space_.taken(); }
  uint64_t resident() const { return resident_; }
  char* at(uint64_t offset) const { return file_.memory.data() + offset; }
  std::string_view content(uint64_t offset, uint64_t size) const { return {at(offset), size}; }

 private:
  Segment(SharedFile file, Budget& budget);
  Status make_resident(uint64_t offset, uint64_t size);

  SharedFile file_;
  Budget* budget_;
  Space space_;
  std::vector<bool> has_memory_;  // by block
  uint64_t resident_ = 0;
};

}  // namespace uccp::shm
