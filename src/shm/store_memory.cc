// Store: what is in memory, what has to leave it, and what comes back.
#include <algorithm>
#include <atomic>

#include "base/bytes.h"
#include "base/log.h"
#include "shm/store.h"

namespace uccp::shm {
namespace {

// What is evicted at a time: files of single small objects would be many.
constexpr uint64_t kBatchShare = 32;
constexpr uint64_t kBatchBytesMax = 8u << 20;
// With a tier, so much of the disk is kept free: what leaves memory does not wait for the tier.
constexpr uint64_t kDiskFreeShare = 4;

std::atomic_ref<uint64_t> word_of(Slot& slot) { return std::atomic_ref<uint64_t>(slot.word); }

}  // namespace

Slot& Store::slot(uint32_t number) const {
  return reinterpret_cast<Slot*>(index_.memory.data() + kHeaderBytes)[number];
}

void Store::show(const Object& object) {
  Slot& shown = slot(object.slot);
  const uint64_t word = word_of(shown).load(std::memory_order_relaxed);
  shown.id = object.id;
  shown.offset = object.offset;
  shown.size = object.size;
  word_of(shown).store((word | 1) + 1, std::memory_order_release);
}

void Store::hide(uint32_t number) { word_of(slot(number)).fetch_add(1, std::memory_order_seq_cst); }

std::optional<uint32_t> Store::free_slot(const ObjectId& id) const {
  const uint32_t first = first_slot(id, options_.slots);
  for (uint32_t i = 0; i < kWindowSlots; ++i) {
    const uint32_t number = (first + i) & (options_.slots - 1);
    if (!slot_taken_[number]) return number;
  }
  return std::nullopt;
}

// A slot of the object's window; if all are taken, one of their objects leaves memory.
Result<uint32_t> Store::make_slot(const ObjectId& id) {
  if (auto found = free_slot(id)) return *found;
  reuse_hidden();
  if (auto found = free_slot(id)) return *found;
  harvest_uses();
  const uint32_t first = first_slot(id, options_.slots);
  Status cause(Code::kExhausted, "INDEX_FULL", "its places in the index are taken");
  for (uint32_t i = 0; i < kWindowSlots; ++i) {
    const uint32_t number = (first + i) & (options_.slots - 1);
    if (in_slot_[number] == nullptr) continue;
    auto freed = evict_these({number});
    if (freed && *freed > 0) return number;
    if (!freed) cause = freed.error();
  }
  return std::unexpected(memory_full(0, cause));
}

// Space of one object, for which others leave if need be.
Result<uint64_t> Store::make_room(uint64_t size) {
  auto offset = segment_.take(size);
  if (offset) return offset;
  reuse_hidden();
  offset = segment_.take(size);
  Status cause = offset ? Status() : offset.error();
  while (!offset) {
    // Another namespace has the memory, or the machine has none: what is free here in other places may go.
    if (cause.reason() != "SEGMENT_FULL") segment_.trim();
    auto freed = evict(size);
    if (!freed) cause = freed.error();
    if (cause.reason() != "SEGMENT_FULL") segment_.trim();
    offset = segment_.take(size);
    if (!offset && (!freed || *freed == 0)) return std::unexpected(memory_full(size, cause));
  }
  return offset;
}

Status Store::memory_full(uint64_t size, const Status& cause) const {
  const StoreStats now = stats();
  return Status(Code::kExhausted, "MEMORY_FULL",
                "no room for an object of " + std::to_string(size) + " bytes: " + std::to_string(now.memory_bytes) +
                    " of " + std::to_string(segment_.size()) + " bytes are taken, " + std::to_string(now.pinned_bytes) +
                    " of them by values that processes hold, " + std::to_string(now.disk_bytes) + " are on the disk; " +
                    std::string(cause.message()) + (tier_failure_.empty() ? "" : "; " + tier_failure_));
}

// Bytes that became free; 0: nothing can go.
Result<uint64_t> Store::evict(uint64_t bytes) {
  harvest_uses();
  const uint64_t wanted = std::max(bytes, std::min(segment_.size() / kBatchShare, kBatchBytesMax));
  uint64_t freed = 0, stuck = 0;
  std::set<uint32_t> tried;
  while (freed < wanted) {
    std::vector<uint32_t> candidates;
    for (const uint32_t number : eviction_->victims(wanted - freed + stuck)) {
      if (!tried.insert(number).second) continue;
      candidates.push_back(number);
      stuck += in_slot_[number]->size;
    }
    if (candidates.empty()) break;
    UCCP_TRY(const uint64_t now, evict_these(candidates));
    freed += now;
    stuck -= now;
  }
  return freed;
}

Result<uint64_t> Store::evict_these(const std::vector<uint32_t>& slots) {
  for (const uint32_t number : slots) hide(number);
  const Status passed = pass_barrier();
  const std::set<uint32_t> pinned = pinned_slots();
  std::vector<Object*> leaving;
  uint64_t bytes = 0;
  for (const uint32_t number : slots) {
    Object& object = *in_slot_[number];
    if (passed.is_ok() && !pinned.contains(number)) {
      leaving.push_back(&object);
      bytes += object.size;
      continue;
    }
    show(object);
    eviction_->used(number, 1);
  }
  UCCP_RETURN_IF_ERROR(passed);
  if (leaving.empty()) return 0;
  if (Status status = move_to_disk(leaving); !status.is_ok()) {
    for (const Object* object : leaving) show(*object);
    return std::unexpected(status);
  }
  return bytes;
}

Status Store::move_to_disk(const std::vector<Object*>& objects) {
  std::vector<SpillObject> contents;
  contents.reserve(objects.size());
  for (const Object* one : objects)
    contents.push_back({.id = one->id, .content = segment_.content(one->offset, one->size)});
  UCCP_TRY(const auto places, spill_.write(contents));
  for (size_t i = 0; i < objects.size(); ++i) {
    Object& object = *objects[i];
    eviction_->removed(object.slot);
    in_slot_[object.slot] = nullptr;
    slot_taken_[object.slot] = false;
    segment_.give_back(object.offset, object.size);
    object.state = State::kDisk;
    object.place = places[i];
    on_disk_.emplace(std::pair(object.place.file, object.place.offset), object.id);
  }
  counts_.spilled += objects.size();
  return {};
}

Status Store::bring_back(Object& object) {
  UCCP_RETURN_IF_ERROR(place(object));
  Status read = spill_.read(object.place, object.id, {segment_.at(object.offset), object.size});
  if (!read.is_ok()) {
    slot_taken_[object.slot] = false;
    segment_.give_back(object.offset, object.size);
    if (read.code() != Code::kCorruption) return read;
    left_disk(object);
    is_lost(object, std::string(read.message()));
    return Status(Code::kCorruption, "OBJECT_LOST", "the object is lost: " + object.why_lost);
  }
  left_disk(object);
  counts_.restored += 1;
  entered_memory(object);
  return {};
}

void Store::left_disk(Object& object) {
  on_disk_.erase({object.place.file, object.place.offset});
  spill_.drop(object.place);
}

std::vector<Store::OnDisk> Store::demotable(uint64_t bytes_max) const {
  std::vector<OnDisk> found;
  const uint64_t full = spill_.bytes_max() - spill_.bytes_max() / kDiskFreeShare;
  if (!options_.has_tier || spill_.bytes() <= full) return found;
  uint64_t left = std::min(bytes_max, spill_.bytes() - spill_.bytes_max() / 2);
  for (const auto& [place, id] : on_disk_) {
    const Object& object = objects_.at(id);
    found.push_back({.id = id, .place = object.place});
    if (object.place.stored >= left) break;
    left -= object.place.stored;
  }
  return found;
}

bool Store::demoted(const OnDisk& one, uint64_t number) {
  const auto found = objects_.find(one.id);
  if (found == objects_.end() || found->second.state != State::kDisk || found->second.place != one.place) return false;
  Object& object = found->second;
  left_disk(object);
  object.state = State::kElsewhere;
  object.in_tier = number;
  counts_.tier_objects += 1;
  counts_.tier_bytes += object.size;
  counts_.demoted += 1;
  return true;
}

std::optional<Store::InTier> Store::in_tier(const ObjectId& id) const {
  const auto found = objects_.find(id);
  if (found == objects_.end() || found->second.in_tier == 0) return std::nullopt;
  return InTier{.id = id, .number = found->second.in_tier, .size = found->second.size};
}

void Store::lost_in_tier(const ObjectId& id, const std::string& why) {
  const auto found = objects_.find(id);
  if (found == objects_.end() || found->second.state != State::kElsewhere || found->second.in_tier == 0) return;
  left_tier(found->second);
  is_lost(found->second, why);
}

void Store::lost_on_disk(const OnDisk& one, const std::string& why) {
  const auto found = objects_.find(one.id);
  if (found == objects_.end() || found->second.state != State::kDisk || found->second.place != one.place) return;
  left_disk(found->second);
  is_lost(found->second, why);
}

void Store::is_lost(Object& object, const std::string& why) {
  log::error("an object that had left memory is lost", {{"error", why}});
  counts_.damaged += 1;
  object.state = State::kLost;
  object.why_lost = why;
}

void Store::left_tier(Object& object) {
  if (object.in_tier == 0) return;
  tier_garbage_.push_back({.id = object.id, .number = object.in_tier, .size = object.size});
  object.in_tier = 0;
  counts_.tier_objects -= 1;
  counts_.tier_bytes -= object.size;
}

// Space that was hidden and that nobody looks at any more is free.
void Store::reuse_hidden() {
  if (hidden_.empty() || !pass_barrier().is_ok()) return;
  const std::set<uint32_t> pinned = pinned_slots();
  std::erase_if(hidden_, [&](const Hidden& one) {
    if (pinned.contains(one.slot)) return false;
    slot_taken_[one.slot] = false;
    segment_.give_back(one.offset, one.size);
    hidden_bytes_ -= one.size;
    return true;
  });
  still_hidden_ = hidden_.size();
  still_hidden_bytes_ = hidden_bytes_;
}

std::set<uint32_t> Store::pinned_slots() const {
  std::set<uint32_t> found;
  for (const auto& [id, client] : clients_) {
    Pin* const pins = reinterpret_cast<Pin*>(client.page.memory.data());
    for (uint32_t i = 0; i < kPinsMax; ++i) {
      const uint32_t number = std::atomic_ref<uint32_t>(pins[i].slot).load(std::memory_order_acquire);
      if (number != 0 && number <= options_.slots) found.insert(number - 1);
    }
  }
  return found;
}

void Store::harvest_uses() {
  for (const auto& [id, client] : clients_) {
    auto* const uses = reinterpret_cast<uint8_t*>(client.page.memory.data() + kPinsBytes);
    for (uint32_t number = 0; number < options_.slots; ++number) {
      if (in_slot_[number] == nullptr || uses[number] == 0) continue;
      eviction_->used(number, std::atomic_ref<uint8_t>(uses[number]).exchange(0, std::memory_order_relaxed));
    }
  }
}

}  // namespace uccp::shm
