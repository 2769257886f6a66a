// Objects that do not fit on the disk: moves them to a tier outside (S3, Redis) in the background, and brings them back
// when they are asked for (docs/shared_memory.md).
//
// Invariants: an object leaves the disk only when the tier has said that it has all of it, so a tier that fails loses
// nothing: the disk stays full, and who puts waits. Contents are encrypted with a key that ends with this agent; what
// an earlier one left in the tier is removed before the first is written. Thread: the reactor's. Blocking work is done
// by threads of its own: one that writes and removes, others that read.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "agent/reactor.h"
#include "base/clock.h"
#include "runtime/thread_pool.h"
#include "shm/store.h"
#include "shm/tier.h"

namespace uccp::agent {

using ObjectPlace = std::pair<std::string, std::string>;  // tenant and namespace

struct ObjectTieringOptions {
  std::shared_ptr<shm::Tier> tier;
  std::string prefix;  // of the keys of this agent alone, ends with /
  shm::Compression compression = shm::Compression::kZstd;
  uint64_t move_bytes_max = 64u << 20;  // at a time
  int64_t retry_first_ms = 1'000, retry_max_ms = 30'000;
  size_t fetches_max = 4;
};

class ObjectTiering {
 public:
  using Key = std::pair<ObjectPlace, shm::ObjectId>;
  using Done = std::function<void(const Status&)>;

  // All must outlive it.
  ObjectTiering(ObjectTieringOptions options, const Clock& clock, Reactor& reactor);
  // Ends its threads. Called once, before the reactor stops.
  void stop();

  // Begins to bring back what is in the tier: unavailable OBJECT_COMING until it has come. Requires that it is there.
  // Errors: those of Store::begin_arrival(), and why the last try failed.
  Status fetch(const ObjectPlace& place, shm::Store& store, const shm::ObjectId& id);
  // Is called once what is on its way has come, or could not; false: nothing is.
  bool when_there(const Key& key, Done done);
  // While it is, stores have to stay.
  bool is_working() const { return working_; }
  // Moves what the disk should not have any more, removes what is not needed.
  void tick(const std::map<ObjectPlace, std::unique_ptr<shm::Store>>& stores);

 private:
  struct Coming {
    std::vector<Done> waiting;
  };
  struct Move {
    ObjectPlace place;
    shm::Store* store = nullptr;
    shm::Store::OnDisk object;
    uint64_t number = 0;
    Status status;
  };

  std::string key_of(const ObjectPlace& place, const shm::ObjectId& id, uint64_t number, uint32_t piece) const;
  std::vector<std::string> keys_of(const ObjectPlace& place, const shm::Store::InTier& object) const;
  Status read(const ObjectPlace& place, const shm::Store::InTier& object, std::span<char> out) const;
  void has_come(const Key& key, shm::Store& store, const Status& status);
  Status write(const Move& move);
  Status sweep();
  void work(std::vector<Move> moves, std::vector<std::string> garbage);
  void has_moved(const std::vector<Move>& moves, std::vector<std::string> garbage, const Status& status);

  const ObjectTieringOptions options_;
  const Clock& clock_;
  Reactor& reactor_;
  shm::Pieces pieces_;
  uint64_t next_number_ = 1;
  std::map<Key, Coming> coming_;
  std::map<Key, Status> failures_;  // until somebody was told
  std::vector<std::string> garbage_;
  std::string failure_;  // why nothing moves
  BootTime retry_;
  int64_t retry_ms_ = 0;
  bool working_ = false;
  bool swept_ = false;  // the writer's
  std::unique_ptr<runtime::ThreadPool> writer_, readers_;
};

}  // namespace uccp::agent
