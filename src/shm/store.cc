// Store: what processes ask for.
#include "shm/store.h"

#include <atomic>

#include "base/bytes.h"
#include "base/check.h"
#include "runtime/os_random.h"

namespace uccp::shm {
namespace {

constexpr uint64_t kLargeBytes = 1u << 20;
// So much hidden space is looked through at a time.
constexpr size_t kHiddenMax = 256;
constexpr uint64_t kHiddenShare = 8;

std::unexpected<Status> unknown(const ObjectId& id) {
  return fail(Code::kNotFound, "OBJECT_UNKNOWN",
              "no object " + to_hex({reinterpret_cast<const char*>(id.data()), id.size()}) +
                  " is here: nothing refers to it any more, or it was put on another machine");
}

}  // namespace

Result<std::unique_ptr<Store>> Store::open(const Clock& clock, FileSystem& files, Budget& budget,
                                           StoreOptions options) {
  UCCP_CHECK((options.slots & (options.slots - 1)) == 0 && options.slots >= kWindowSlots, "slots are a power of two");
  UCCP_RETURN_IF_ERROR(join_barriers());
  UCCP_TRY(auto index, SharedFile::create("uccp-index", index_bytes(options.slots), Writers::kMakerAlone));
  UCCP_TRY(auto segment, Segment::create(options.memory_bytes_max, budget));
  runtime::SystemRandom random;
  UCCP_TRY(auto spill, Spill::open(files, options.spill_directory, options.disk_bytes_max,
                                   Pieces(SecretKey::make(random), options.compression)));
  const IndexHeader header{.slots = options.slots, .segment_bytes = segment.size()};
  std::memcpy(index.memory.data(), &header, sizeof header);
  return std::unique_ptr<Store>(
      new Store(clock, std::move(options), std::move(index), std::move(segment), std::move(spill)));
}

Store::Store(const Clock& clock, StoreOptions options, SharedFile index, Segment segment, Spill spill)
    : clock_(clock),
      options_(std::move(options)),
      index_(std::move(index)),
      segment_(std::move(segment)),
      spill_(std::move(spill)),
      eviction_(Eviction::make(options_.policy)),
      in_slot_(options_.slots),
      slot_taken_(options_.slots) {}

Result<Store::ClientId> Store::attach() {
  if (clients_.size() >= options_.clients_max) {
    return fail(Code::kExhausted, "CLIENTS_TOO_MANY",
                "at most " + std::to_string(options_.clients_max) + " processes of a namespace share its objects");
  }
  UCCP_TRY(auto page, SharedFile::create("uccp-page", page_bytes(options_.slots), Writers::kWhoeverHasIt));
  const ClientId id = next_client_++;
  clients_.emplace(id, Client{.page = std::move(page), .references = {}});
  return id;
}

void Store::detach(ClientId client) {
  const auto found = clients_.find(client);
  if (found == clients_.end()) return;
  for (const auto& [id, count] : found->second.references) {
    const auto object = objects_.find(id);
    if (object == objects_.end()) continue;
    object->second.references -= count;
    unreferenced(object->second);
  }
  clients_.erase(found);
}

Result<uint64_t> Store::create(ClientId client, const ObjectId& id, uint64_t size) {
  if (objects_.contains(id))
    return fail(Code::kAlreadyExists, "OBJECT_EXISTS", "an object of this id is there already; ids are random");
  UCCP_RETURN_IF_ERROR(check_size(size));
  UCCP_RETURN_IF_ERROR(check_count());
  Object object{.id = id, .size = size, .references = 1};
  UCCP_RETURN_IF_ERROR(place(object));
  const uint64_t offset = object.offset;
  objects_.emplace(id, std::move(object));
  clients_.at(client).references[id] = 1;
  return offset;
}

Status Store::check_size(uint64_t size) {
  if (size > 0 && size <= segment_.size()) return {};
  counts_.refused += 1;
  return Status(Code::kInvalid, "OBJECT_TOO_LARGE",
                "an object of " + std::to_string(size) + " bytes cannot be shared: this machine keeps " +
                    std::to_string(segment_.size()) + " bytes of objects in memory; see --objects-memory");
}

Status Store::check_count() {
  if (objects_.size() < options_.objects_max) return {};
  counts_.refused += 1;
  return Status(
      Code::kExhausted, "OBJECTS_TOO_MANY",
      "this namespace has " + std::to_string(objects_.size()) + " objects on this machine, as many as it may");
}

// Finds a slot and space. The slot shows nothing yet.
Status Store::place(Object& object) {
  // What was still looked at the last time does not count: it would be looked through with each object.
  if (hidden_.size() >= still_hidden_ + kHiddenMax ||
      hidden_bytes_ > still_hidden_bytes_ + segment_.size() / kHiddenShare ||
      (object.size >= kLargeBytes && !hidden_.empty())) {
    reuse_hidden();
  }
  UCCP_TRY(object.slot, make_slot(object.id));
  slot_taken_[object.slot] = true;
  auto offset = make_room(object.size);
  if (!offset) {
    slot_taken_[object.slot] = false;
    counts_.refused += 1;
    return offset.error();
  }
  object.offset = *offset;
  return {};
}

Status Store::seal(ClientId client, const ObjectId& id) {
  const auto found = objects_.find(id);
  if (found == objects_.end() || !clients_.at(client).references.contains(id)) return unknown(id).error();
  Object& object = found->second;
  if (object.state != State::kWriting) return {};
  counts_.puts += 1;
  entered_memory(object);
  return {};
}

void Store::entered_memory(Object& object) {
  object.state = State::kMemory;
  in_slot_[object.slot] = &object;
  uint64_t fingerprint = 0;
  std::memcpy(&fingerprint, object.id.data(), sizeof fingerprint);
  eviction_->added({.key = object.slot, .fingerprint = fingerprint, .size = object.size, .time = clock_.boot()});
  show(object);
}

Status Store::put(ClientId client, const ObjectId& id, std::string_view content) {
  UCCP_TRY(const uint64_t offset, create(client, id, content.size()));
  std::memcpy(segment_.at(offset), content.data(), content.size());
  return seal(client, id);
}

Status Store::hand_over(ClientId client, const ObjectId& id) {
  const auto found = objects_.find(id);
  if (found == objects_.end() || !clients_.at(client).references.contains(id)) return unknown(id).error();
  hand_over(found->second);
  release(client, id);
  return {};
}

void Store::hand_over(Object& object) {
  if (object.handover_end.us != 0) return;
  object.handover_end = clock_.boot().plus_ms(options_.handover_ms);
  handovers_.emplace(object.handover_end.us, object.id);
}

Status Store::retain(ClientId client, const ObjectId& id) {
  const auto found = objects_.find(id);
  if (found == objects_.end()) return unknown(id).error();
  Object& object = found->second;
  object.references += 1;
  clients_.at(client).references[id] += 1;
  handovers_.erase({object.handover_end.us, id});
  object.handover_end = {};
  return {};
}

void Store::release(ClientId client, const ObjectId& id) {
  auto& own = clients_.at(client).references;
  const auto reference = own.find(id);
  if (reference == own.end()) return;
  if (--reference->second == 0) own.erase(reference);
  Object& object = objects_.at(id);
  object.references -= 1;
  unreferenced(object);
}

// Ends it, if nobody refers to it. What is being written has to wait; what was fetched may be asked for again soon.
void Store::unreferenced(Object& object) {
  if (object.references > 0 || object.handover_end.us != 0 || object.state == State::kComing) return;
  if (object.put_elsewhere && (object.state == State::kMemory || object.state == State::kDisk)) hand_over(object);
  else remove(object.id);
}

Status Store::locate(const ObjectId& id) {
  const auto found = objects_.find(id);
  if (found == objects_.end()) return unknown(id).error();
  Object& object = found->second;
  switch (object.state) {
    case State::kMemory: return {};
    case State::kWriting: return Status(Code::kUnavailable, "OBJECT_UNSEALED", "the object is still being written");
    case State::kLost: return Status(Code::kCorruption, "OBJECT_LOST", "the object is lost: " + object.why_lost);
    case State::kElsewhere: return Status(Code::kUnavailable, "OBJECT_ELSEWHERE", "the object has to be fetched");
    case State::kComing: return Status(Code::kUnavailable, "OBJECT_COMING", "the object is being fetched");
    case State::kDisk: break;
  }
  return bring_back(object);
}

bool Store::is_elsewhere(const ObjectId& id) const {
  const auto found = objects_.find(id);
  return found != objects_.end() && found->second.state == State::kElsewhere;
}

Result<std::string_view> Store::pin(ClientId client, const ObjectId& id) {
  UCCP_RETURN_IF_ERROR(locate(id));
  const Object& object = objects_.at(id);
  // Nothing leaves memory meanwhile: that is this thread's work.
  Pin& own = *reinterpret_cast<Pin*>(clients_.at(client).page.memory.data());
  std::atomic_ref<uint32_t>(own.slot).store(object.slot + 1, std::memory_order_release);
  return segment_.content(object.offset, object.size);
}

Result<bool> Store::refer(ClientId client, const ObjectId& id) {
  if (retain(client, id).is_ok()) return false;
  UCCP_RETURN_IF_ERROR(check_count());
  objects_.emplace(id, Object{.id = id, .state = State::kElsewhere, .references = 1, .put_elsewhere = true});
  clients_.at(client).references[id] = 1;
  return true;
}

Result<std::span<char>> Store::begin_arrival(const ObjectId& id, uint64_t size) {
  const auto found = objects_.find(id);
  if (found == objects_.end()) return unknown(id);
  Object& object = found->second;
  if (object.state != State::kElsewhere)
    return fail(Code::kUnavailable, "OBJECT_COMING", "the object has come, or does already");
  UCCP_RETURN_IF_ERROR(check_size(size));
  object.size = size;
  UCCP_RETURN_IF_ERROR(place(object));
  object.state = State::kComing;
  return std::span<char>(segment_.at(object.offset), size);
}

void Store::end_arrival(const ObjectId& id, bool has_come) {
  Object& object = objects_.at(id);
  UCCP_CHECK(object.state == State::kComing, "an arrival has begun");
  if (has_come) {
    counts_.restored += object.in_tier != 0 ? 1 : 0;
    counts_.fetched += object.in_tier != 0 ? 0 : 1;
    counts_.fetched_bytes += object.in_tier != 0 ? 0 : object.size;
    left_tier(object);
    entered_memory(object);
  } else {
    slot_taken_[object.slot] = false;
    segment_.give_back(object.offset, object.size);
    object.state = State::kElsewhere;
  }
  unreferenced(object);
}

void Store::remove(const ObjectId& id) {
  const auto found = objects_.find(id);
  Object& object = found->second;
  handovers_.erase({object.handover_end.us, id});
  switch (object.state) {
    case State::kMemory:
      hide(object.slot);
      eviction_->removed(object.slot);
      in_slot_[object.slot] = nullptr;
      hidden_.push_back({.slot = object.slot, .offset = object.offset, .size = object.size});
      hidden_bytes_ += object.size;
      break;
    case State::kWriting:  // nobody has seen it
      slot_taken_[object.slot] = false;
      segment_.give_back(object.offset, object.size);
      break;
    case State::kDisk: left_disk(object); break;
    case State::kElsewhere: left_tier(object); break;
    case State::kLost: break;
    case State::kComing: UCCP_CHECK(false, "what is being written stays"); break;
  }
  const bool put_elsewhere = object.put_elsewhere;
  objects_.erase(found);
  if (put_elsewhere) options_.on_forgotten(id);
}

void Store::tick() {
  const BootTime now = clock_.boot();
  while (!handovers_.empty() && handovers_.begin()->first <= now.us) {
    const ObjectId id = handovers_.begin()->second;
    handovers_.erase(handovers_.begin());
    Object& object = objects_.at(id);
    object.handover_end = {};
    if (object.references == 0 && object.state != State::kComing) remove(id);
  }
  const auto old = eviction_->older_than(BootTime{now.us - options_.ttl_ms * 1000});
  if (!old.empty()) (void)evict_these(old);  // a full disk keeps them in memory
  reuse_hidden();
}

void Store::trim() {
  reuse_hidden();
  segment_.trim();
}

StoreStats Store::stats() const {
  StoreStats stats = counts_;
  stats.objects = objects_.size();
  stats.clients = clients_.size();
  stats.memory_bytes = segment_.taken() - hidden_bytes_;
  stats.resident_bytes = segment_.resident();
  stats.disk_bytes = spill_.bytes();
  for (const uint32_t number : pinned_slots()) {
    if (in_slot_[number] != nullptr) stats.pinned_bytes += in_slot_[number]->size;
  }
  return stats;
}

}  // namespace uccp::shm
