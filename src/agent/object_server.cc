#include "agent/object_server.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/bytes.h"
#include "base/hash.h"
#include "base/log.h"
#include "runtime/os_random.h"

namespace uccp::agent {
namespace {

constexpr int64_t kTickMs = 1000;
constexpr size_t kConnectionsMax = 4096;
constexpr size_t kIdBytes = 16;
constexpr size_t kTierNameBytes = 32;

std::string actor_name(const std::string& task_id, int attempt) { return task_id + "/" + std::to_string(attempt); }

// Readable by its owner alone from its first moment on.
Status write_private_file(const std::string& path, std::string_view content) {
  const std::string next = path + ".next";
  (void)unlink(next.c_str());
  const OwnedFd file(open(next.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file || write(file.get(), content.data(), content.size()) != static_cast<ssize_t>(content.size()) ||
      rename(next.c_str(), path.c_str()) != 0) {
    return Status(Code::kUnavailable, "IO_ERROR", "cannot write " + path + ": " + std::strerror(errno));
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<ObjectServer>> ObjectServer::start(const Clock& clock, FileSystem& files,
                                                          ObjectServerOptions options) {
  std::unique_ptr<ObjectServer> server(new ObjectServer(clock, files, std::move(options)));
  UCCP_RETURN_IF_ERROR(server->open());
  return server;
}

ObjectServer::ObjectServer(const Clock& clock, FileSystem& files, ObjectServerOptions options)
    : clock_(clock), files_(files), options_(std::move(options)), reactor_(clock) {
  budget_.bytes_max = options_.store.memory_bytes_max;
}

ObjectServer::~ObjectServer() {
  if (exchange_) exchange_->stop();
  if (tiering_) tiering_->stop();
  reactor_.stop();
  (void)unlink((options_.data_directory + "/objects.json").c_str());
}

Status ObjectServer::open() {
  UCCP_RETURN_IF_ERROR(shm::join_barriers());
  std::error_code error;
  std::filesystem::remove_all(options_.data_directory + "/objects", error);
  UCCP_TRY(listener_, listen_for_workers("objects-" + to_hex(runtime::random_bytes(16))));
  master_grant_ = to_hex(runtime::random_bytes(32));
  UCCP_RETURN_IF_ERROR(
      write_private_file(options_.data_directory + "/objects.json",
                         R"({"socket":")" + listener_.name + R"(","grant":")" + master_grant_ + "\"}\n"));
  ObjectExchangeOptions exchange = options_.exchange;
  if (options_.tiering.tier != nullptr) {
    UCCP_TRY(ObjectTieringOptions tiering, tiering_options());
    tiering_ = std::make_unique<ObjectTiering>(std::move(tiering), clock_, reactor_);
    exchange.tiering = tiering_.get();
  }
  UCCP_TRY(exchange_, ObjectExchange::open(std::move(exchange), clock_, reactor_,
                                           [this](const Place& place) { return store_of(place); }));
  reactor_.watch(listener_.socket.get(), [this] { accept_one(); });
  reactor_.post_after(kTickMs, [this] { tick(); });
  reactor_.start();
  return {};
}

// What this data directory's agents keep in the tier has a name that no other's has, so that the next one finds it.
Result<ObjectTieringOptions> ObjectServer::tiering_options() {
  ObjectTieringOptions tiering = options_.tiering;
  const std::string path = options_.data_directory + "/objects.tier";
  auto name = read_file(files_, path, kTierNameBytes);
  if (!name || name->size() != kTierNameBytes || !from_hex(*name)) {
    name = to_hex(runtime::random_bytes(kTierNameBytes / 2));
    UCCP_RETURN_IF_ERROR(write_file_atomically(files_, path, *name));
  }
  tiering.prefix += *name + "/";
  return tiering;
}

std::map<std::string, std::string> ObjectServer::environment(const std::string& tenant, const std::string& name_space) {
  const std::lock_guard lock(mutex_);
  std::string& grant = grants_[{tenant, name_space}];
  if (grant.empty()) {
    grant = to_hex(runtime::random_bytes(32));
    places_.emplace(grant, Place(tenant, name_space));
  }
  return {{"UCCP_OBJECTS_SOCKET", listener_.name}, {"UCCP_OBJECTS_GRANT", grant}};
}

void ObjectServer::actor_began(const std::string& task_id, int attempt) {
  const std::lock_guard lock(mutex_);
  actors_.insert(actor_name(task_id, attempt));
}

void ObjectServer::actor_ended(const std::string& task_id, int attempt) {
  const std::lock_guard lock(mutex_);
  actors_.erase(actor_name(task_id, attempt));
}

void ObjectServer::accept_one() {
  OwnedFd fd(accept4(listener_.socket.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd) return;
  if (connections_.size() >= kConnectionsMax) {
    log::warn("a process asks for objects, and too many have them", {{"connections", connections_.size()}});
    return;
  }
  const int number = fd.get();
  connections_.emplace(number, Connection{.socket = std::move(fd)});
  reactor_.watch(number, [this, number] { on_packet(number); });
}

void ObjectServer::on_packet(int fd) {
  Connection& connection = connections_.at(fd);
  auto packet = receive_packet(fd);
  if (!packet) return drop(fd);
  if (!packet->has_value()) return;
  if (std::string_view("RKBF").contains((*packet)->kind)) return one_way(connection, **packet);
  Status status = answer(connection, **packet);
  if (status.is_ok()) return;
  if (status.reason() == "MEMORY_FULL") make_room_elsewhere(connection.store);
  if (!send_packet(fd, 'E', error_body(status), {}).is_ok()) drop(fd);
}

void ObjectServer::drop(int fd) {
  reactor_.unwatch(fd);
  const auto found = connections_.find(fd);
  if (found->second.store != nullptr) found->second.store->detach(found->second.client);
  connections_.erase(found);
}

Status ObjectServer::answer(Connection& connection, const WorkerPacket& packet) {
  if (packet.kind == 'T') return attach(connection, packet.body);
  if (connection.store == nullptr)
    return Status(Code::kPermission, "GRANT_MISSING", "a grant comes first, and this process has shown none");
  if (packet.kind == 'Q') return send_packet(connection.socket.get(), 'Q', stats_body(connection), {});
  if (packet.kind == 'N') return put_many(connection, packet.body);
  if (packet.kind == 'L') {
    std::string body;
    append_field(body, 'l', exchange_->location(connection.place));
    return send_packet(connection.socket.get(), 'L', body, {});
  }
  if (packet.kind != 'W') return object_request(connection, packet);
  const std::lock_guard lock(mutex_);
  std::string body;
  append_field(body, 'y', actors_.contains(find_field(packet.body, 'n')) ? "1" : "0");
  return send_packet(connection.socket.get(), 'W', body, {});
}

std::string ObjectServer::stats_body(const Connection& connection) const {
  const shm::StoreStats stats = connection.store->stats();
  const ObjectExchangeStats exchanged = exchange_->stats(connection.place);
  std::string body;
  const std::pair<const char*, uint64_t> all[] = {{"objects", stats.objects},
                                                  {"memory_bytes", stats.memory_bytes},
                                                  {"resident_bytes", stats.resident_bytes},
                                                  {"disk_bytes", stats.disk_bytes},
                                                  {"pinned_bytes", stats.pinned_bytes},
                                                  {"clients", stats.clients},
                                                  {"puts", stats.puts},
                                                  {"spilled", stats.spilled},
                                                  {"restored", stats.restored},
                                                  {"damaged", stats.damaged},
                                                  {"refused", stats.refused},
                                                  {"fetched", stats.fetched},
                                                  {"fetched_bytes", stats.fetched_bytes},
                                                  {"tier_objects", stats.tier_objects},
                                                  {"tier_bytes", stats.tier_bytes},
                                                  {"demoted", stats.demoted},
                                                  {"served", exchanged.served},
                                                  {"served_bytes", exchanged.served_bytes}};
  for (const auto& [name, value] : all) {
    append_field(body, 'n', name);
    append_field(body, 'v', ByteWriter().u64(value).data());
  }
  return body;
}

Result<ObjectServer::Place> ObjectServer::place_of(std::string_view body) {
  const std::string_view grant = find_field(body, 'x');
  if (grant == master_grant_) {
    Place place(find_field(body, 't'), find_field(body, 'n'));
    if (!place.first.empty() && !place.second.empty()) return place;
    return fail(Code::kInvalid, "REQUEST_INVALID", "with this grant a tenant and a namespace are named");
  }
  const std::lock_guard lock(mutex_);
  if (const auto found = places_.find(grant); found != places_.end()) return found->second;
  return fail(Code::kPermission, "GRANT_INVALID", "the grant is not of this agent");
}

Result<shm::Store*> ObjectServer::store_of(const Place& place) {
  if (const auto found = stores_.find(place); found != stores_.end()) return found->second.get();
  if (stores_.size() >= options_.namespaces_max) {
    return fail(Code::kExhausted, "NAMESPACES_TOO_MANY",
                "processes of " + std::to_string(stores_.size()) + " namespaces share objects here, as many as may");
  }
  shm::StoreOptions options = options_.store;
  const std::string name = ByteWriter().bytes(place.first).bytes(place.second).take();
  options.spill_directory = options_.data_directory + "/objects/" + to_hex(sha256(name)).substr(0, 32);
  options.memory_bytes_max =
      static_cast<uint64_t>(static_cast<double>(options.memory_bytes_max) * options_.memory_share);
  options.has_tier = tiering_ != nullptr;
  options.on_forgotten = [this, place](const shm::ObjectId& id) { exchange_->forgotten(place, id); };
  UCCP_TRY(auto store, shm::Store::open(clock_, files_, budget_, std::move(options)));
  return stores_.emplace(place, std::move(store)).first->second.get();
}

Status ObjectServer::attach(Connection& connection, std::string_view body) {
  if (connection.store != nullptr) return Status(Code::kInvalid, "REQUEST_INVALID", "a grant is shown once");
  UCCP_TRY(const Place place, place_of(body));
  UCCP_TRY(shm::Store* const store, store_of(place));
  UCCP_TRY(const auto client, store->attach());
  std::vector<OwnedFd> files;
  for (const int fd : {store->index_fd(), store->segment_fd(), store->page_fd(client)})
    files.emplace_back(fcntl(fd, F_DUPFD_CLOEXEC, 0));
  connection.store = store;
  connection.client = client;
  connection.place = place;
  if (!preparing_) reactor_.post([this] { prepare(); });
  return send_packet(connection.socket.get(), 'T', {}, files);
}

Status ObjectServer::object_request(Connection& connection, const WorkerPacket& packet) {
  UCCP_TRY(const shm::ObjectId id, id_of(find_field(packet.body, 'i')));
  shm::Store& store = *connection.store;
  const std::string_view body = packet.body;
  std::string answer;
  switch (packet.kind) {
    case 'P': UCCP_RETURN_IF_ERROR(store.put(connection.client, id, find_field(body, 'd'))); break;
    case 'S': UCCP_RETURN_IF_ERROR(store.seal(connection.client, id)); break;
    case 'G': UCCP_RETURN_IF_ERROR(exchange_->locate(connection.place, id)); break;
    case 'C': {
      UCCP_TRY(const uint64_t size, number_of(body, 's'));
      UCCP_TRY(const uint64_t offset, store.create(connection.client, id, size));
      answer = number_field('o', offset);
      break;
    }
    default: return Status(Code::kInvalid, "REQUEST_INVALID", "there is no such request");
  }
  if (!find_field(body, 'h').empty()) UCCP_RETURN_IF_ERROR(store.hand_over(connection.client, id));
  return send_packet(connection.socket.get(), packet.kind, answer, {});
}

// Answers how many it has put. The first that cannot be put is an error if there is none before it, and is to be put
// again otherwise.
Status ObjectServer::put_many(Connection& connection, std::string_view body) {
  uint64_t count = 0;
  Result<shm::ObjectId> id = id_of({});
  Status status;
  for (const auto& [tag, content] : fields_of(body)) {
    if (tag == 'i') id = id_of(content);
    if (tag != 'd') continue;
    status = id ? connection.store->put(connection.client, *id, content) : id.error();
    if (!status.is_ok()) break;
    ++count;
  }
  if (count == 0 && !status.is_ok()) return status;
  return send_packet(connection.socket.get(), 'N', number_field('n', count), {});
}

// References: many at a time, and nothing to answer.
void ObjectServer::one_way(Connection& connection, const WorkerPacket& packet) {
  if (connection.store == nullptr) return;
  const std::string_view ids = find_field(packet.body, 'i');
  const std::string_view location = find_field(packet.body, 'l');
  for (size_t at = 0; at + kIdBytes <= ids.size(); at += kIdBytes) {
    shm::ObjectId id;
    std::memcpy(id.data(), ids.data() + at, kIdBytes);
    // One that is gone already shows when it is read.
    if (packet.kind == 'K') (void)connection.store->retain(connection.client, id);
    else if (packet.kind == 'F' && connection.store->is_elsewhere(id)) (void)exchange_->locate(connection.place, id);
    else if (packet.kind == 'B') (void)exchange_->refer(connection.place, connection.client, id, location);
    else if (packet.kind == 'R') connection.store->release(connection.client, id);
  }
}

// Memory that other namespaces keep warm for themselves.
void ObjectServer::make_room_elsewhere(const shm::Store* asking) {
  for (const auto& [place, store] : stores_) {
    if (store.get() != asking) store->trim();
  }
}

void ObjectServer::tick() {
  for (const auto& [place, store] : stores_) store->tick();
  exchange_->tick();
  if (tiering_) tiering_->tick(stores_);
  if (!tiering_ || !tiering_->is_working())
    std::erase_if(stores_, [](const auto& one) { return one.second->unused(); });
  if (!preparing_) prepare();
  reactor_.post_after(kTickMs, [this] { tick(); });
}

// A little at a time, so that nobody waits for it.
void ObjectServer::prepare() {
  constexpr uint64_t kReadyShare = 16;
  const uint64_t all = std::min(options_.ready_bytes, options_.store.memory_bytes_max / kReadyShare);
  bool more = false;
  for (const auto& [place, store] : stores_) more = store->prepare(all / stores_.size()) || more;
  preparing_ = more;
  if (more) reactor_.post([this] { prepare(); });
}

}  // namespace uccp::agent
