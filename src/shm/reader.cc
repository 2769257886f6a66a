#include "shm/reader.h"

#include <sys/stat.h>

#include <atomic>

namespace uccp::shm {
namespace {

// A slot that changes under the reader is looked at again, as often as this.
constexpr int kTries = 100;

uint64_t load(uint64_t& value, std::memory_order order = std::memory_order_relaxed) {
  return std::atomic_ref<uint64_t>(value).load(order);
}

Result<uint64_t> size_of(int fd) {
  struct stat status{};
  if (fstat(fd, &status) != 0) return fail(Code::kUnavailable, "MEMORY_MAP_FAILED", "a memory file has no size");
  return static_cast<uint64_t>(status.st_size);
}

}  // namespace

Result<Reader> Reader::open(int index_fd, int segment_fd, int page_fd) {
  UCCP_RETURN_IF_ERROR(join_barriers());
  UCCP_TRY(const uint64_t index_size, size_of(index_fd));
  UCCP_TRY(const uint64_t segment_size, size_of(segment_fd));
  UCCP_TRY(const uint64_t page_size, size_of(page_fd));
  UCCP_TRY(auto index, Mapping::of(index_fd, index_size, Access::kRead));
  IndexHeader header;
  if (index_size >= kHeaderBytes) std::memcpy(&header, index.data(), sizeof header);
  else header.magic = 0;
  const uint32_t slots = header.slots;
  if (header.magic != kIndexMagic || header.version != kLayoutVersion || slots < kWindowSlots ||
      (slots & (slots - 1)) != 0 || index_size != index_bytes(slots) || page_size != page_bytes(slots) ||
      segment_size != header.segment_bytes) {
    return fail(Code::kCorruption, "INDEX_INVALID", "these files are no index of shared objects of layout 1");
  }
  UCCP_TRY(auto segment, Mapping::of(segment_fd, segment_size, Access::kRead));
  UCCP_TRY(auto page, Mapping::of(page_fd, page_size, Access::kWrite));
  return Reader(std::move(index), std::move(segment), std::move(page), slots);
}

Reader::Reader(Mapping index, Mapping segment, Mapping page, uint32_t slots)
    : index_(std::move(index)), segment_(std::move(segment)), page_(std::move(page)), slots_(slots) {
  for (uint32_t i = kPinsMax; i > 0; --i) free_.push_back(i - 1);
}

Slot& Reader::slot(uint32_t number) const { return reinterpret_cast<Slot*>(index_.data() + kHeaderBytes)[number]; }

std::optional<Reader::Seen> Reader::find(const ObjectId& id) const {
  uint64_t wanted[2];
  std::memcpy(wanted, id.data(), sizeof wanted);
  const uint32_t first = first_slot(id, slots_);
  for (uint32_t i = 0; i < kWindowSlots; ++i) {
    const uint32_t number = (first + i) & (slots_ - 1);
    Slot& looked = slot(number);
    auto* const halves = reinterpret_cast<uint64_t*>(looked.id.data());
    Seen seen{.slot = number, .word = load(looked.word, std::memory_order_acquire)};
    if ((seen.word & 1) != 0 || seen.word == 0) continue;
    if (load(halves[0]) != wanted[0] || load(halves[1]) != wanted[1]) continue;
    seen.offset = load(looked.offset);
    seen.size = load(looked.size);
    // What a slot says is believed only as far as the segment goes.
    if (!unchanged(seen) || seen.offset > segment_.size() || seen.size > segment_.size() - seen.offset) continue;
    return seen;
  }
  return std::nullopt;
}

bool Reader::unchanged(const Seen& seen) const {
  std::atomic_thread_fence(std::memory_order_acquire);
  return load(slot(seen.slot).word) == seen.word;
}

void Reader::count_use(uint32_t slot) {
  const std::atomic_ref<uint8_t> uses(reinterpret_cast<uint8_t*>(page_.data() + kPinsBytes)[slot]);
  const uint8_t counted = uses.load(std::memory_order_relaxed);
  if (counted < 255) uses.store(counted + 1, std::memory_order_relaxed);
}

bool Reader::copy(const ObjectId& id, std::string& out) {
  for (int i = 0; i < kTries; ++i) {
    const auto seen = find(id);
    if (!seen) return false;
    out.assign(segment_.data() + seen->offset, seen->size);
    if (!unchanged(*seen)) continue;
    count_use(seen->slot);
    return true;
  }
  return false;
}

std::optional<Reader::Pinned> Reader::pin(const ObjectId& id) {
  for (int i = 0; i < kTries; ++i) {
    const auto seen = find(id);
    if (!seen) return std::nullopt;
    const Pinned pinned{.slot = seen->slot, .content = {segment_.data() + seen->offset, seen->size}};
    if (const auto found = pinned_.find(seen->slot); found != pinned_.end()) {
      pins()[found->second].count += 1;
      return pinned;
    }
    if (free_.empty()) return std::nullopt;
    const uint32_t place = free_.back();
    pins()[place].count = 1;
    std::atomic_ref<uint32_t>(pins()[place].slot).store(seen->slot + 1, std::memory_order_release);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    if (unchanged(*seen)) {
      free_.pop_back();
      pinned_.emplace(seen->slot, place);
      count_use(seen->slot);
      return pinned;
    }
    std::atomic_ref<uint32_t>(pins()[place].slot).store(0, std::memory_order_release);
  }
  return std::nullopt;
}

void Reader::unpin(uint32_t slot) {
  const auto found = pinned_.find(slot);
  if (found == pinned_.end()) return;
  Pin& pin = pins()[found->second];
  if (--pin.count > 0) return;
  std::atomic_ref<uint32_t>(pin.slot).store(0, std::memory_order_release);
  free_.push_back(found->second);
  pinned_.erase(found);
}

}  // namespace uccp::shm
