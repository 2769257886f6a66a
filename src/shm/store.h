// The objects of one namespace on one machine: in memory that its processes share, or on the disk when that is full.
//
// A process puts an object, and from then on nobody changes it. Processes find objects in the index and read them
// without asking; what they read for longer they pin on their page (layout.h). The store asks nothing of them: a
// process that dies in the middle of anything leaves an unsealed object, references and a page, and detach() ends them
// all. An object lives while somebody holds a reference to it, or for a while after it was handed over to somebody who
// has not taken it yet. Content that comes from elsewhere is written by whoever fetches it, between begin_arrival() and
// its end; what was fetched stays for a while when nobody refers to it any more.
//
// Invariants: a pinned object stays where it is; an object without references is gone; bytes in memory and on the disk
// stay within their limits. What a process writes on its page is not trusted.
// Thread: one; calls may block on the disk.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "shm/eviction.h"
#include "shm/layout.h"
#include "shm/segment.h"
#include "shm/spill.h"

namespace uccp::shm {

struct StoreOptions {
  uint64_t memory_bytes_max = 1ull << 30;
  uint64_t disk_bytes_max = 16ull << 30;
  uint32_t slots = 1u << 17;  // objects in memory; a power of two
  size_t objects_max = 1'000'000;
  size_t clients_max = 1024;
  Policy policy = Policy::kS3Fifo;
  int64_t ttl_ms = 600'000;      // of kTtl: what is older leaves memory
  int64_t handover_ms = 60'000;  // until it is taken; of what was fetched: after its last reference
  // An object that was not put here, whether it has come or not, is not known here any more.
  std::function<void(const ObjectId&)> on_forgotten = [](const ObjectId&) {};
  std::string spill_directory;
  Compression compression = Compression::kNone;  // of what is on the disk
  bool has_tier = false;  // behind the disk there is one more place, to which somebody moves what has been there long
};

struct StoreStats {
  uint64_t objects = 0, memory_bytes = 0, resident_bytes = 0, disk_bytes = 0, pinned_bytes = 0;
  uint64_t clients = 0;
  uint64_t puts = 0, spilled = 0, restored = 0, damaged = 0, refused = 0;
  uint64_t fetched = 0, fetched_bytes = 0;
  uint64_t tier_objects = 0, tier_bytes = 0, demoted = 0;
};

class Store {
 public:
  using ClientId = uint64_t;

  // All references must outlive it. Errors: those of memory files and of the disk; unavailable BARRIER_MISSING.
  static Result<std::unique_ptr<Store>> open(const Clock& clock, FileSystem& files, Budget& budget,
                                             StoreOptions options);

  // A process comes. Errors: exhausted CLIENTS_TOO_MANY.
  Result<ClientId> attach();
  // It is gone, with its pins, its references and what it did not seal.
  void detach(ClientId client);
  int index_fd() const { return index_.fd.get(); }
  int segment_fd() const { return segment_.fd(); }
  int page_fd(ClientId client) const { return clients_.at(client).page.fd.get(); }
  const StoreOptions& options() const { return options_; }

  // Makes place for an object, which the client writes and seals; it has a reference then. Answers where. Errors:
  // already_exists OBJECT_EXISTS; invalid OBJECT_TOO_LARGE; exhausted MEMORY_FULL: pins may go, ask again;
  // exhausted OBJECTS_TOO_MANY.
  Result<uint64_t> create(ClientId client, const ObjectId& id, uint64_t size);
  // From now on it can be read. Errors: not_found OBJECT_UNKNOWN.
  Status seal(ClientId client, const ObjectId& id);
  // Both at once. Errors: as for create().
  Status put(ClientId client, const ObjectId& id, std::string_view content);
  // Gives the client's reference to whoever takes one next, within handover_ms. Errors: not_found OBJECT_UNKNOWN.
  Status hand_over(ClientId client, const ObjectId& id);

  // Another reference of the client. Errors: not_found OBJECT_UNKNOWN.
  Status retain(ClientId client, const ObjectId& id);
  // One less; what is unknown is ignored.
  void release(ClientId client, const ObjectId& id);
  // The object is in the index when this returns; if it had left memory it is brought back. Errors: not_found
  // OBJECT_UNKNOWN; corruption OBJECT_LOST; exhausted MEMORY_FULL; unavailable OBJECT_UNSEALED, OBJECT_ELSEWHERE: it
  // has to be fetched, OBJECT_COMING: it is being fetched.
  Status locate(const ObjectId& id);

  bool is_elsewhere(const ObjectId& id) const;

  // A reference of the client to an object that is somewhere else, or here already; true: it was not known here.
  // Errors: exhausted OBJECTS_TOO_MANY.
  Result<bool> refer(ClientId client, const ObjectId& id);
  // Place for the content of an object that is elsewhere, to be written by any one thread. Errors: as for create(), the
  // object is still elsewhere then; not_found OBJECT_UNKNOWN; unavailable OBJECT_COMING: somebody else has begun.
  Result<std::span<char>> begin_arrival(const ObjectId& id, uint64_t size);
  // Its content is written, or could not be: then it is elsewhere as before. Requires begin_arrival().
  void end_arrival(const ObjectId& id, bool has_come);

  // The content of an object, in memory until the client is gone or pins another one so: for who serves it to others
  // and has no Reader. Errors: those of locate().
  Result<std::string_view> pin(ClientId client, const ObjectId& id);

  // With a tier, whose work is somebody else's: what should go there next, as far as the disk is fuller than it should
  // be, in the order in which it came to the disk.
  struct OnDisk {
    ObjectId id{};
    SpillPlace place;
  };
  std::vector<OnDisk> demotable(uint64_t bytes_max) const;
  // Reads what demotable() named, from any thread. Errors: those of Spill::read_pieces().
  Status read_disk(const OnDisk& object, const Spill::TakePiece& take) const {
    return spill_.read_pieces(object.place, object.id, take);
  }
  // It is in the tier now, under this number that no other move has had, and not needed on the disk. False: it is not
  // needed in the tier.
  bool demoted(const OnDisk& object, uint64_t number);
  struct InTier {
    ObjectId id{};
    uint64_t number = 0;
    uint64_t size = 0;
  };
  // Where in the tier an object is; nothing if it is not. locate() says OBJECT_ELSEWHERE of it.
  std::optional<InTier> in_tier(const ObjectId& id) const;
  // It is damaged, in the tier or on the disk.
  void lost_in_tier(const ObjectId& id, const std::string& why);
  void lost_on_disk(const OnDisk& object, const std::string& why);
  // What is not needed in the tier any more, since this was asked last.
  std::vector<InTier> take_tier_garbage() { return std::exchange(tier_garbage_, {}); }
  // Why nothing moves to the tier; a put that finds no room says it. Empty: it does.
  void set_tier_failure(std::string why) { tier_failure_ = std::move(why); }

  // Now and then: what was handed over and not taken ends, what is too old leaves memory.
  void tick();
  // Gives back to the machine what is not in use.
  void trim();
  // Asks the machine for some of the memory that objects will be put into, as long as so much is not free with memory
  // behind it; false: there is nothing more to do. Large objects are put several times as fast then.
  bool prepare(uint64_t free_bytes) { return !clients_.empty() && segment_.prepare(free_bytes); }

  StoreStats stats() const;
  bool unused() const { return clients_.empty() && objects_.empty(); }

 private:
  enum class State : uint8_t { kWriting, kMemory, kDisk, kLost, kElsewhere, kComing };

  struct Object {
    ObjectId id{};
    State state = State::kWriting;
    uint64_t size = 0;
    uint64_t offset = 0;
    uint32_t slot = 0;
    SpillPlace place;
    uint64_t references = 0;
    BootTime handover_end;  // 0: not handed over
    bool put_elsewhere = false;
    uint64_t in_tier = 0;  // its number there; 0: it is not
    std::string why_lost;
  };

  struct Client {
    SharedFile page;
    std::unordered_map<ObjectId, uint64_t, ObjectIdHash> references;
  };

  // Space that readers may still look at.
  struct Hidden {
    uint32_t slot = 0;
    uint64_t offset = 0;
    uint64_t size = 0;
  };

  Store(const Clock& clock, StoreOptions options, SharedFile index, Segment segment, Spill spill);

  Slot& slot(uint32_t number) const;
  void show(const Object& object);
  void hide(uint32_t number);
  std::optional<uint32_t> free_slot(const ObjectId& id) const;
  Status check_size(uint64_t size);
  Status check_count();
  Status place(Object& object);
  Result<uint64_t> make_room(uint64_t size);
  Result<uint32_t> make_slot(const ObjectId& id);
  Result<uint64_t> evict(uint64_t bytes);
  Result<uint64_t> evict_these(const std::vector<uint32_t>& slots);
  Status move_to_disk(const std::vector<Object*>& objects);
  Status bring_back(Object& object);
  void left_disk(Object& object);
  void left_tier(Object& object);
  void is_lost(Object& object, const std::string& why);
  void entered_memory(Object& object);
  void unreferenced(Object& object);
  void hand_over(Object& object);
  void remove(const ObjectId& id);
  void reuse_hidden();
  void harvest_uses();
  std::set<uint32_t> pinned_slots() const;
  Status memory_full(uint64_t size, const Status& cause) const;

  const Clock& clock_;
  const StoreOptions options_;
  SharedFile index_;
  Segment segment_;
  Spill spill_;
  std::unique_ptr<Eviction> eviction_;
  std::unordered_map<ObjectId, Object, ObjectIdHash> objects_;
  std::vector<Object*> in_slot_;  // null: none, or hidden
  std::vector<bool> slot_taken_;  // shown, being written, or hidden
  std::vector<Hidden> hidden_;
  uint64_t hidden_bytes_ = 0;
  size_t still_hidden_ = 0;  // of them: pinned when they were looked through last
  uint64_t still_hidden_bytes_ = 0;
  std::map<ClientId, Client> clients_;
  ClientId next_client_ = 1;
  std::set<std::pair<int64_t, ObjectId>> handovers_;           // by their ends
  std::map<std::pair<uint64_t, uint64_t>, ObjectId> on_disk_;  // by file and offset
  std::vector<InTier> tier_garbage_;
  std::string tier_failure_;
  StoreStats counts_;
};

}  // namespace uccp::shm
