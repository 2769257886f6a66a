// Objects of other machines, as seen from this one: which are referred to here, fetched when somebody asks for them,
// and held at their owners by leases; and what others hold and read here (docs/design/objects.md).
//
// Invariants: an object that is referred to here and has not come is held at who has it, from a tick on and for as long
// as this agent says so; an agent that says nothing for the time of a lease holds nothing here.
// Thread: the reactor's, but for what ObjectHouse says. Blocking work is done by a few threads of its own.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "agent/object_peers.h"
#include "agent/object_tiering.h"
#include "agent/reactor.h"
#include "base/clock.h"
#include "runtime/thread_pool.h"
#include "shm/store.h"

namespace uccp::agent {

struct ObjectExchangeOptions {
  ObjectDoorOptions door;
  std::string zone;
  int64_t lease_ms = 60'000;
  size_t fetches_max = 4;            // at a time
  size_t copies_max = 100'000;       // of all objects that this agent knows of
  int64_t copy_known_ms = 600'000;   // until it is told again
  ObjectTiering* tiering = nullptr;  // null: there is no tier
};

struct ObjectExchangeStats {
  uint64_t served = 0, served_bytes = 0;
};

class ObjectExchange final : public ObjectHouse {
 public:
  using StoreOf = std::function<Result<shm::Store*>(const ObjectPlace&)>;
  using Done = std::function<void(const Status&)>;

  // Both references must outlive it; the reactor need not run yet. Errors: those of
  // ObjectDoor.
  static Result<std::unique_ptr<ObjectExchange>> open(ObjectExchangeOptions options, const Clock& clock,
                                                      Reactor& reactor, StoreOf store_of);
  // Ends its threads, which the reactor answers meanwhile. Called once, before the reactor stops.
  void stop();

  // What others need to read objects of this namespace here.
  std::string location(const ObjectPlace& place);
  // The client has a reference to an object that is there. Errors: those of Store::refer(); invalid LOCATION_INVALID.
  Status refer(const ObjectPlace& place, shm::Store::ClientId client, const shm::ObjectId& id,
               std::string_view location);
  // As Store::locate(), and begins to fetch what is elsewhere: unavailable OBJECT_COMING until it has come. Errors:
  // also corruption OBJECT_LOST: nobody has it any more, or can be reached.
  Status locate(const ObjectPlace& place, const shm::ObjectId& id);
  // The store does not know it any more.
  void forgotten(const ObjectPlace& place, const shm::ObjectId& id);
  void tick();
  ObjectExchangeStats stats(const ObjectPlace& place) const;

  Result<std::unique_ptr<Open>> open(const PeerWish& wish) override;
  std::vector<ObjectLocation> copies(const PeerWish& wish) override;
  Status lease(const PeerLeases& leases) override;
  void has_copy(const PeerWish& wish, const ObjectLocation& where) override;
  void has_served(const PeerWish& wish, uint64_t bytes) override;

 private:
  using Key = std::pair<ObjectPlace, shm::ObjectId>;

  // An object that is referred to here and has not come.
  struct Away {
    std::string owner;
    uint64_t fetch = 0;  // 0: none is under way
    Status failure;      // of the last one, until somebody was told
    std::vector<Done> waiting;
  };

  // Who has such.
  struct Owner {
    ObjectLocation where;
    std::set<shm::ObjectId> held;
    std::vector<shm::ObjectId> taken, released;  // not yet told
    BootTime told;
    bool telling = false;
  };

  struct Peer {
    shm::Store::ClientId client = 0;
    BootTime end;
  };

  struct Copy {
    ObjectLocation where;
    BootTime end;
  };

  class Opened;

  ObjectExchange(ObjectExchangeOptions options, const Clock& clock, Reactor& reactor, StoreOf store_of);
  template <typename T>
  T on_loop(std::function<void(std::function<void(T)>)> work);
  Result<ObjectPlace> place_of(const std::string& grant) const;
  void when_there(const ObjectPlace& place, const shm::ObjectId& id, Done done);
  void begin_fetch(const Key& key, Away& away);
  void end_fetch(const Key& key, uint64_t fetch, bool begun, const Status& status);
  void let_go(const Key& key);
  void tell(Owner& owner);
  void told(const std::string& owner, const PeerLeases& leases, const Status& status);
  Status take_leases(const PeerLeases& leases);

  const ObjectExchangeOptions options_;
  const Clock& clock_;
  Reactor& reactor_;
  const StoreOf store_of_;
  PeerReader self_;
  std::map<ObjectPlace, std::string> grants_;
  std::map<std::string, ObjectPlace, std::less<>> places_;
  std::map<Key, Away> away_;
  std::map<std::string, Owner> owners_;  // by their locations
  std::map<std::pair<ObjectPlace, PeerId>, Peer> peers_;
  std::map<Key, std::vector<Copy>> copies_;
  size_t copies_known_ = 0;
  std::map<ObjectPlace, ObjectExchangeStats> stats_;
  uint64_t next_fetch_ = 1;
  PeerStreams streams_;
  std::unique_ptr<ObjectDoor> door_;
  std::unique_ptr<runtime::ThreadPool> pool_;
};

}  // namespace uccp::agent
