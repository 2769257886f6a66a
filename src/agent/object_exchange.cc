#include "agent/object_exchange.h"

#include <algorithm>
#include <future>

#include "base/bytes.h"
#include "base/log.h"
#include "runtime/os_random.h"

namespace uccp::agent {
namespace {

// A lease is renewed so many times before it would end.
constexpr int64_t kRenewalsPerLease = 4;
constexpr size_t kCopiesPerObject = 8;
constexpr size_t kRandomBytes = 16;

// What a reader of an object is told when it could not be fetched.
Status as_loss(const Status& status) {
  if (status.code() == Code::kExhausted || status.code() == Code::kInvalid) return status;
  return Status(
      Code::kCorruption, "OBJECT_LOST",
      "the object was put on another machine and cannot be read from there: " + std::string(status.message()));
}

}  // namespace

// An object that the door sends. It is pinned as long as its client is there.
class ObjectExchange::Opened final : public Open {
 public:
  Opened(Reactor& reactor, shm::Store& store, shm::Store::ClientId client, std::string_view content)
      : reactor_(reactor), store_(store), client_(client), content_(content) {}
  ~Opened() override {
    reactor_.post([&store = store_, client = client_] { store.detach(client); });
  }
  std::string_view content() const override { return content_; }

 private:
  Reactor& reactor_;
  shm::Store& store_;  // stays while it has a client
  const shm::Store::ClientId client_;
  const std::string_view content_;
};

Result<std::unique_ptr<ObjectExchange>> ObjectExchange::open(ObjectExchangeOptions options, const Clock& clock,
                                                             Reactor& reactor, StoreOf store_of) {
  std::unique_ptr<ObjectExchange> exchange(new ObjectExchange(std::move(options), clock, reactor, std::move(store_of)));
  UCCP_TRY(exchange->door_, ObjectDoor::open(exchange->options_.door, clock.wall(), *exchange));
  exchange->self_.here.address = exchange->door_->address();
  exchange->self_.here.authority = exchange->door_->authority();
  reactor.watch(exchange->door_->socket(), [door = exchange->door_.get()] { door->accept_one(); });
  return exchange;
}

ObjectExchange::ObjectExchange(ObjectExchangeOptions options, const Clock& clock, Reactor& reactor, StoreOf store_of)
    : options_(std::move(options)), clock_(clock), reactor_(reactor), store_of_(std::move(store_of)) {
  self_.id = runtime::random_bytes(kRandomBytes);
  self_.here.zone = options_.zone;
  self_.timeout_ms = options_.door.timeout_ms;
  pool_ = std::make_unique<runtime::ThreadPool>(
      runtime::ThreadPoolOptions{.name = "objects", .threads = options_.fetches_max});
}

void ObjectExchange::stop() {
  std::promise<void> unwatched;
  reactor_.post([&] {
    reactor_.unwatch(door_->socket());
    unwatched.set_value();
  });
  unwatched.get_future().wait();
  streams_.stop();
  pool_->stop();
  door_->stop();
}

// Runs `work` on the reactor's thread, waits until it calls what it is given, and answers that.
template <typename T>
T ObjectExchange::on_loop(std::function<void(std::function<void(T)>)> work) {
  const auto promise = std::make_shared<std::promise<T>>();
  reactor_.post(
      [work = std::move(work), promise] { work([promise](T value) { promise->set_value(std::move(value)); }); });
  return promise->get_future().get();
}

std::string ObjectExchange::location(const ObjectPlace& place) {
  std::string& grant = grants_[place];
  if (grant.empty()) {
    grant = to_hex(runtime::random_bytes(2 * kRandomBytes));
    places_.emplace(grant, place);
  }
  ObjectLocation here = self_.here;
  here.grant = grant;
  return encode(here);
}

Result<ObjectPlace> ObjectExchange::place_of(const std::string& grant) const {
  if (const auto found = places_.find(grant); found != places_.end()) return found->second;
  return fail(Code::kPermission, "GRANT_INVALID", "the grant is not of this agent");
}

// What is elsewhere
// ----------------------------------------------------------------------------------------------------

Status ObjectExchange::refer(const ObjectPlace& place, shm::Store::ClientId client, const shm::ObjectId& id,
                             std::string_view location) {
  UCCP_TRY(ObjectLocation where, parse_location(location));
  UCCP_TRY(shm::Store* const store, store_of_(place));
  if (where.address == self_.here.address) return store->retain(client, id);
  UCCP_TRY(const bool is_new, store->refer(client, id));
  if (!is_new) return {};
  const std::string name(location);
  Owner& owner = owners_.try_emplace(name).first->second;
  owner.where = std::move(where);
  owner.held.insert(id);
  owner.taken.push_back(id);
  away_.insert_or_assign(Key(place, id), Away{.owner = name});
  return {};
}

Status ObjectExchange::locate(const ObjectPlace& place, const shm::ObjectId& id) {
  UCCP_TRY(shm::Store* const store, store_of_(place));
  Status status = store->locate(id);
  if (status.reason() != "OBJECT_ELSEWHERE") return status;
  const auto found = away_.find({place, id});
  if (found == away_.end())
    return options_.tiering != nullptr && store->in_tier(id) ? options_.tiering->fetch(place, *store, id) : status;
  if (!found->second.failure.is_ok()) return std::exchange(found->second.failure, Status());
  if (found->second.fetch == 0) begin_fetch(found->first, found->second);
  return Status(Code::kUnavailable, "OBJECT_COMING", "the object is being fetched");
}

// As locate(), for who can be called.
void ObjectExchange::when_there(const ObjectPlace& place, const shm::ObjectId& id, Done done) {
  const Status status = locate(place, id);
  if (status.reason() != "OBJECT_COMING") return done(status);
  const Key key(place, id);
  if (const auto found = away_.find(key); found != away_.end()) return found->second.waiting.push_back(std::move(done));
  if (options_.tiering == nullptr || !options_.tiering->when_there(key, done)) done(status);
}

void ObjectExchange::begin_fetch(const Key& key, Away& away) {
  away.fetch = next_fetch_++;
  const auto work = [this, key, fetch = away.fetch, where = owners_.at(away.owner).where, here = location(key.first)] {
    bool begun = false;
    PeerReader reader = self_;
    reader.here = *parse_location(here);
    const Status status = fetch_object(streams_, reader, where, key.second, [&](uint64_t size) {
      auto place = on_loop<Result<std::span<char>>>([&](auto done) {
        const auto store = store_of_(key.first);
        done(store ? (*store)->begin_arrival(key.second, size) : std::unexpected(store.error()));
      });
      begun = place.has_value();
      return place;
    });
    reactor_.post([this, key, fetch, begun, status] { end_fetch(key, fetch, begun, status); });
  };
  if (Status status = pool_->post(work); !status.is_ok()) end_fetch(key, away.fetch, false, status);
}

void ObjectExchange::end_fetch(const Key& key, uint64_t fetch, bool begun, const Status& status) {
  std::vector<Done> waiting;
  const auto found = away_.find(key);
  // Another fetch may have begun when nothing had referred to the object for a moment; whichever ends well ends both.
  if (found != away_.end() && (found->second.fetch == fetch || (begun && status.is_ok()))) {
    found->second.fetch = 0;
    waiting.swap(found->second.waiting);
    // Who waits is told now, others when they ask again.
    if (!status.is_ok()) found->second.failure = as_loss(status);
  }
  if (begun) {
    if (status.is_ok()) let_go(key);  // it is here, and needs nobody else any more
    (*store_of_(key.first))->end_arrival(key.second, status.is_ok());
  }
  for (const Done& done : waiting) done(status.is_ok() ? status : as_loss(status));
}

void ObjectExchange::forgotten(const ObjectPlace& place, const shm::ObjectId& id) { let_go({place, id}); }

void ObjectExchange::let_go(const Key& key) {
  const auto found = away_.find(key);
  if (found == away_.end()) return;
  Owner& owner = owners_.at(found->second.owner);
  owner.held.erase(key.second);
  owner.released.push_back(key.second);
  const auto waiting = std::move(found->second.waiting);
  away_.erase(found);
  for (const Done& done : waiting)
    done(Status(Code::kNotFound, "OBJECT_UNKNOWN", "nothing refers to the object any more"));
}

// Leases
// ---------------------------------------------------------------------------------------------------------------

void ObjectExchange::tick() {
  const BootTime now = clock_.boot();
  for (auto& [name, owner] : owners_) {
    const bool news = !owner.taken.empty() || !owner.released.empty();
    const bool due = !owner.held.empty() && now >= owner.told.plus_ms(options_.lease_ms / kRenewalsPerLease);
    if ((news || due) && !owner.telling) tell(owner);
  }
  std::erase_if(owners_, [](const auto& one) {
    const Owner& owner = one.second;
    return owner.held.empty() && owner.taken.empty() && owner.released.empty() && !owner.telling;
  });
  std::erase_if(peers_, [&](const auto& one) {
    if (now < one.second.end) return false;
    if (const auto store = store_of_(one.first.first)) (*store)->detach(one.second.client);
    return true;
  });
  copies_known_ = 0;
  for (auto& [key, known] : copies_) {
    std::erase_if(known, [&](const Copy& one) { return now >= one.end; });
    copies_known_ += known.size();
  }
  std::erase_if(copies_, [](const auto& one) { return one.second.empty(); });
}

void ObjectExchange::tell(Owner& owner) {
  owner.telling = true;
  owner.told = clock_.boot();
  PeerLeases leases{.peer = self_.id,
                    .grant = owner.where.grant,
                    .taken = std::exchange(owner.taken, {}),
                    .released = std::exchange(owner.released, {})};
  const auto work = [this, where = owner.where, leases = std::move(leases)] {
    const Status status = send_leases(streams_, where, leases, self_.timeout_ms);
    reactor_.post([this, name = encode(where), leases, status] { told(name, leases, status); });
  };
  if (!pool_->post(work).is_ok()) owner.telling = false;
}

void ObjectExchange::told(const std::string& name, const PeerLeases& leases, const Status& status) {
  const auto found = owners_.find(name);
  if (found == owners_.end()) return;
  Owner& owner = found->second;
  owner.telling = false;
  if (status.is_ok()) return;
  log::info("objects of another machine are not held there",
            {{"address", owner.where.address}, {"objects", owner.held.size()}, {"error", status.message()}});
  // Once more with the next renewal; what was given back there ends by itself.
  for (const shm::ObjectId& id : leases.taken) {
    if (owner.held.contains(id)) owner.taken.push_back(id);
  }
}

Status ObjectExchange::lease(const PeerLeases& leases) {
  return on_loop<Status>([&](auto done) { done(take_leases(leases)); });
}

Status ObjectExchange::take_leases(const PeerLeases& leases) {
  UCCP_TRY(const ObjectPlace place, place_of(leases.grant));
  UCCP_TRY(shm::Store* const store, store_of_(place));
  auto found = peers_.find({place, leases.peer});
  if (found == peers_.end()) {
    UCCP_TRY(const auto client, store->attach());
    found = peers_.emplace(std::pair(place, leases.peer), Peer{.client = client}).first;
  }
  found->second.end = clock_.boot().plus_ms(options_.lease_ms);
  // One that is gone shows when it is read.
  for (const shm::ObjectId& id : leases.taken) (void)store->retain(found->second.client, id);
  for (const shm::ObjectId& id : leases.released) store->release(found->second.client, id);
  return {};
}

// What the door asks
// ---------------------------------------------------------------------------------------------------

Result<std::unique_ptr<ObjectHouse::Open>> ObjectExchange::open(const PeerWish& wish) {
  using Answer = Result<std::unique_ptr<Open>>;
  return on_loop<Answer>([this, &wish](const std::function<void(Answer)>& done) {
    const auto place = place_of(wish.grant);
    if (!place) return done(std::unexpected(place.error()));
    when_there(*place, wish.id, [this, id = wish.id, place = *place, done](const Status& status) {
      if (!status.is_ok()) return done(std::unexpected(status));
      const auto opened = [&]() -> Answer {
        UCCP_TRY(shm::Store* const store, store_of_(place));
        UCCP_TRY(const auto client, store->attach());
        auto content = store->pin(client, id);
        if (content) return std::make_unique<Opened>(reactor_, *store, client, *content);
        store->detach(client);
        return std::unexpected(content.error());
      };
      done(opened());
    });
  });
}

std::vector<ObjectLocation> ObjectExchange::copies(const PeerWish& wish) {
  using Answer = std::vector<ObjectLocation>;
  return on_loop<Answer>([&](const std::function<void(Answer)>& done) {
    Answer found;
    if (const auto place = place_of(wish.grant)) {
      const auto known = copies_.find({*place, wish.id});
      if (known != copies_.end())
        for (const Copy& one : known->second) found.push_back(one.where);
    }
    done(std::move(found));
  });
}

void ObjectExchange::has_copy(const PeerWish& wish, const ObjectLocation& where) {
  reactor_.post([this, wish, where] {
    const auto place = place_of(wish.grant);
    if (!place || copies_known_ >= options_.copies_max) return;
    auto& known = copies_[{*place, wish.id}];
    copies_known_ -= std::erase_if(known, [&](const Copy& one) { return one.where == where; });
    if (known.size() >= kCopiesPerObject) {
      known.erase(known.begin());
      copies_known_ -= 1;
    }
    known.push_back({.where = where, .end = clock_.boot().plus_ms(options_.copy_known_ms)});
    copies_known_ += 1;
  });
}

void ObjectExchange::has_served(const PeerWish& wish, uint64_t bytes) {
  reactor_.post([this, wish, bytes] {
    const auto place = place_of(wish.grant);
    if (!place) return;
    ObjectExchangeStats& stats = stats_[*place];
    stats.served += 1;
    stats.served_bytes += bytes;
  });
}

ObjectExchangeStats ObjectExchange::stats(const ObjectPlace& place) const {
  const auto found = stats_.find(place);
  return found == stats_.end() ? ObjectExchangeStats{} : found->second;
}

}  // namespace uccp::agent
