#include "agent/object_tiering.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/hash.h"
#include "base/log.h"
#include "runtime/os_random.h"

namespace uccp::agent {
namespace {

constexpr size_t kPlaceDigits = 32;

SecretKey key_of_this_run() {
  runtime::SystemRandom random;
  return SecretKey::make(random);
}

// The tier itself is well, it is the object that is not.
bool is_loss(const Status& status) { return status.code() == Code::kCorruption || status.reason() == "OBJECT_MISSING"; }

// Nothing else can be moved either.
bool is_of_tier(const Status& status) { return status.reason().starts_with("TIER_"); }

}  // namespace

ObjectTiering::ObjectTiering(ObjectTieringOptions options, const Clock& clock, Reactor& reactor)
    : options_(std::move(options)),
      clock_(clock),
      reactor_(reactor),
      pieces_(key_of_this_run(), options_.compression),
      writer_(std::make_unique<runtime::ThreadPool>(runtime::ThreadPoolOptions{.name = "objects-out", .threads = 1})),
      readers_(std::make_unique<runtime::ThreadPool>(
          runtime::ThreadPoolOptions{.name = "objects-in", .threads = options_.fetches_max})) {}

void ObjectTiering::stop() {
  readers_->stop();
  writer_->stop();
}

std::string ObjectTiering::key_of(const ObjectPlace& place, const shm::ObjectId& id, uint64_t number,
                                  uint32_t piece) const {
  const std::string name = ByteWriter().bytes(place.first).bytes(place.second).take();
  return options_.prefix + to_hex(sha256(name)).substr(0, kPlaceDigits) + "/" +
         to_hex({reinterpret_cast<const char*>(id.data()), id.size()}) + "/" + std::to_string(number) + "/" +
         std::to_string(piece);
}

std::vector<std::string> ObjectTiering::keys_of(const ObjectPlace& place, const shm::Store::InTier& object) const {
  std::vector<std::string> keys;
  for (uint32_t piece = 0; piece < shm::pieces_of(object.size); ++piece)
    keys.push_back(key_of(place, object.id, object.number, piece));
  return keys;
}

// Reading
// --------------------------------------------------------------------------------------------------------------

Status ObjectTiering::fetch(const ObjectPlace& place, shm::Store& store, const shm::ObjectId& id) {
  const Key key(place, id);
  if (const auto failed = failures_.find(key); failed != failures_.end()) {
    const Status status = failed->second;
    failures_.erase(failed);
    return status;
  }
  const auto object = store.in_tier(id);
  UCCP_TRY(const std::span<char> out, store.begin_arrival(id, object->size));
  coming_[key];
  const auto work = [this, key, &store, object = *object, out] {
    const Status status = read(key.first, object, out);
    reactor_.post([this, key, &store, status] { has_come(key, store, status); });
  };
  if (Status status = readers_->post(work); !status.is_ok()) has_come(key, store, status);
  return Status(Code::kUnavailable, "OBJECT_COMING", "the object is being fetched");
}

Status ObjectTiering::read(const ObjectPlace& place, const shm::Store::InTier& object, std::span<char> out) const {
  uint32_t index = 0;
  for (const std::string& key : keys_of(place, object)) {
    UCCP_TRY(const std::string sealed, options_.tier->get(key));
    const size_t begin = index * shm::kPieceBytes;
    Status status =
        pieces_.open(object.id, index, sealed, out.subspan(begin, std::min(shm::kPieceBytes, out.size() - begin)));
    if (!status.is_ok())
      return Status(status.code(), status.reason(),
                    options_.tier->name() + ": " + key + ": " + std::string(status.message()));
    ++index;
  }
  return {};
}

void ObjectTiering::has_come(const Key& key, shm::Store& store, const Status& status) {
  Status told = status;
  if (is_loss(status))
    told = Status(Code::kCorruption, "OBJECT_LOST", "the object is lost: " + std::string(status.message()));
  store.end_arrival(key.second, status.is_ok());
  if (is_loss(status)) store.lost_in_tier(key.second, std::string(status.message()));
  // Who asks again is told; not if nobody can any more, or if the object itself says it.
  else if (!status.is_ok() && store.in_tier(key.second)) failures_[key] = status;
  const auto node = coming_.extract(key);
  for (const Done& done : node.mapped().waiting) done(told);
}

bool ObjectTiering::when_there(const Key& key, Done done) {
  const auto found = coming_.find(key);
  if (found == coming_.end()) return false;
  found->second.waiting.push_back(std::move(done));
  return true;
}

// Writing
// --------------------------------------------------------------------------------------------------------------

void ObjectTiering::tick(const std::map<ObjectPlace, std::unique_ptr<shm::Store>>& stores) {
  for (const auto& [place, store] : stores) {
    for (const shm::Store::InTier& one : store->take_tier_garbage())
      std::ranges::move(keys_of(place, one), std::back_inserter(garbage_));
    store->set_tier_failure(failure_);
  }
  std::erase_if(failures_, [&](const auto& one) {
    const auto store = stores.find(one.first.first);
    return store == stores.end() || !store->second->in_tier(one.first.second);
  });
  if (working_ || clock_.boot() < retry_) return;
  std::vector<Move> moves;
  for (const auto& [place, store] : stores) {
    for (const shm::Store::OnDisk& one : store->demotable(options_.move_bytes_max))
      moves.push_back({.place = place, .store = store.get(), .object = one, .number = next_number_++, .status = {}});
  }
  if (moves.empty() && garbage_.empty()) return;
  working_ = true;
  const auto begun =
      writer_->post([this, moves = std::move(moves), garbage = std::exchange(garbage_, {})] { work(moves, garbage); });
  working_ = begun.is_ok();
}

// On the writer's thread.
void ObjectTiering::work(std::vector<Move> moves, std::vector<std::string> garbage) {
  Status status = swept_ ? Status() : sweep();
  if (status.is_ok() && !garbage.empty()) {
    status = options_.tier->remove(garbage);
    if (status.is_ok()) garbage.clear();
  }
  for (Move& move : moves) {
    move.status = status.is_ok() ? write(move) : status;
    if (is_of_tier(move.status)) status = move.status;
  }
  reactor_.post(
      [this, moves = std::move(moves), garbage = std::move(garbage), status] { has_moved(moves, garbage, status); });
}

Status ObjectTiering::sweep() {
  size_t removed = 0;
  while (true) {
    UCCP_TRY(const auto left, options_.tier->list(options_.prefix));
    if (left.empty()) break;
    removed += left.size();
    UCCP_RETURN_IF_ERROR(options_.tier->remove(left));
  }
  swept_ = true;
  if (removed > 0)
    log::info("what an earlier agent left is removed", {{"tier", options_.tier->name()}, {"keys", removed}});
  return {};
}

Status ObjectTiering::write(const Move& move) {
  return move.store->read_disk(move.object, [&](uint32_t index, std::string_view content) {
    return options_.tier->put(key_of(move.place, move.object.id, move.number, index),
                              pieces_.seal(move.object.id, index, content));
  });
}

void ObjectTiering::has_moved(const std::vector<Move>& moves, std::vector<std::string> garbage, const Status& status) {
  working_ = false;
  std::ranges::move(garbage, std::back_inserter(garbage_));
  for (const Move& move : moves) {
    if (move.status.is_ok() && move.store->demoted(move.object, move.number)) continue;
    if (is_loss(move.status)) move.store->lost_on_disk(move.object, std::string(move.status.message()));
    // A part of it may be there. A file that is gone is that of an object that nobody wants any more.
    std::ranges::move(
        keys_of(move.place, {.id = move.object.id, .number = move.number, .size = move.object.place.size}),
        std::back_inserter(garbage_));
  }
  if (status.is_ok()) {
    if (!failure_.empty()) log::info("objects move again", {{"tier", options_.tier->name()}});
    failure_.clear();
    retry_ms_ = 0;
    return;
  }
  if (failure_.empty()) log::warn("objects do not move, the disk keeps them", {{"error", status.message()}});
  failure_ = status.message();
  retry_ms_ = std::clamp(2 * retry_ms_, options_.retry_first_ms, options_.retry_max_ms);
  retry_ = clock_.boot().plus_ms(retry_ms_);
}

}  // namespace uccp::agent
