#include "shm/segment.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace uccp::shm {
namespace {

constexpr uint64_t kBlockBytes = 64u << 10;
constexpr uint64_t kPreparedBlocks = 32;  // at a time: a millisecond of the kernel's work

}  // namespace

Result<Segment> Segment::create(uint64_t size, Budget& budget) {
  const uint64_t rounded = (size + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
  UCCP_TRY(auto file, SharedFile::create("uccp-objects", rounded, Writers::kWhoeverHasIt));
  return Segment(std::move(file), budget);
}

Segment::Segment(SharedFile file, Budget& budget)
    : file_(std::move(file)),
      budget_(&budget),
      space_(file_.memory.size()),
      has_memory_(file_.memory.size() / kBlockBytes) {}

Segment::Segment(Segment&& other) noexcept
    : file_(std::move(other.file_)),
      budget_(other.budget_),
      space_(std::move(other.space_)),
      has_memory_(std::move(other.has_memory_)),
      resident_(std::exchange(other.resident_, 0)) {}

Segment::~Segment() { budget_->bytes -= resident_; }

Result<uint64_t> Segment::take(uint64_t size) {
  const auto offset = space_.take(size);
  if (!offset) {
    return fail(Code::kExhausted, "SEGMENT_FULL",
                std::to_string(size) + " bytes are not free in one piece: the largest has " +
                    std::to_string(space_.largest_free()));
  }
  if (Status status = make_resident(*offset, Space::rounded(size)); !status.is_ok()) {
    space_.give_back(*offset, size);
    return std::unexpected(status);
  }
  return *offset;
}

Status Segment::make_resident(uint64_t offset, uint64_t size) {
  const uint64_t first = offset / kBlockBytes, end = (offset + size + kBlockBytes - 1) / kBlockBytes;
  for (uint64_t block = first; block < end; ++block) {
    if (has_memory_[block]) continue;
    uint64_t last = block;
    while (last < end && !has_memory_[last]) ++last;
    const uint64_t bytes = (last - block) * kBlockBytes;
    if (budget_->bytes + bytes > budget_->bytes_max) {
      return Status(Code::kExhausted, "BUDGET_USED",
                    std::to_string(budget_->bytes) + " of " + std::to_string(budget_->bytes_max) +
                        " bytes for objects are in use by all namespaces; see --objects-memory");
    }
    if (fallocate(fd(), 0, static_cast<off_t>(block * kBlockBytes), static_cast<off_t>(bytes)) != 0) {
      return Status(Code::kUnavailable, "MEMORY_MISSING",
                    "the machine has no " + std::to_string(bytes) + " bytes for objects: " + std::strerror(errno));
    }
    std::fill(has_memory_.begin() + static_cast<std::ptrdiff_t>(block),
              has_memory_.begin() + static_cast<std::ptrdiff_t>(last), true);
    resident_ += bytes;
    budget_->bytes += bytes;
    block = last - 1;
  }
  return {};
}

bool Segment::prepare(uint64_t free_bytes) {
  if (resident_ >= space_.taken() + free_bytes) return false;
  for (const auto& [offset, size] : space_.free_parts()) {
    const uint64_t first = (offset + kBlockBytes - 1) / kBlockBytes, end = (offset + size) / kBlockBytes;
    for (uint64_t block = first; block < end; ++block) {
      if (has_memory_[block]) continue;
      const uint64_t last = std::min(end, block + kPreparedBlocks);
      return make_resident(block * kBlockBytes, (last - block) * kBlockBytes).is_ok();
    }
  }
  return false;
}

void Segment::trim() {
  for (const auto& [offset, size] : space_.free_parts()) {
    const uint64_t first = (offset + kBlockBytes - 1) / kBlockBytes, end = (offset + size) / kBlockBytes;
    for (uint64_t block = first; block < end; ++block) {
      if (!has_memory_[block]) continue;
      uint64_t last = block;
      while (last < end && has_memory_[last]) ++last;
      const uint64_t bytes = (last - block) * kBlockBytes;
      if (fallocate(fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(block * kBlockBytes),
                    static_cast<off_t>(bytes)) != 0) {
        return;  // it stays warm
      }
      std::fill(has_memory_.begin() + static_cast<std::ptrdiff_t>(block),
                has_memory_.begin() + static_cast<std::ptrdiff_t>(last), false);
      resident_ -= bytes;
      budget_->bytes -= bytes;
      block = last;
    }
  }
}

}  // namespace uccp::shm
