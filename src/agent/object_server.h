// The door to the objects of this machine: gives each process that may have them the shared memory of its namespace,
// and answers what cannot be read there (docs/design/objects.md).
//
// Who comes shows a grant. Processes that run for a namespace are started with that namespace's; the file objects.json
// in the data directory, which only the agent's own user reads, has one for all. Nobody else gets a descriptor.
// Thread: one of its own; grants and actors are asked for from any.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>

#include "agent/function_wire.h"
#include "agent/object_exchange.h"
#include "agent/reactor.h"
#include "base/file_system.h"
#include "shm/store.h"

namespace uccp::agent {

struct ObjectServerOptions {
  std::string data_directory;
  shm::StoreOptions store;      // of each namespace; its memory_bytes_max bounds all of them together
  size_t namespaces_max = 256;  // at a time
  double memory_share = 1;      // of memory_bytes_max, that one namespace may have
  // Memory that is made ready for objects that come, of all namespaces together; at most a sixteenth of all.
  uint64_t ready_bytes = 128u << 20;
  ObjectExchangeOptions exchange;
  ObjectTieringOptions tiering;  // without a tier: there is none
};

class ObjectServer {
 public:
  // Writes objects.json. References must outlive it. Errors: unavailable BARRIER_MISSING, IO_ERROR; those of
  // ObjectExchange.
  static Result<std::unique_ptr<ObjectServer>> start(const Clock& clock, FileSystem& files,
                                                     ObjectServerOptions options);
  ~ObjectServer();

  // What the environment of a process of this namespace says.
  std::map<std::string, std::string> environment(const std::string& tenant, const std::string& name_space);
  // An actor of these runs here, or does not any more: its callers ask whether they share memory with it.
  void actor_began(const std::string& task_id, int attempt);
  void actor_ended(const std::string& task_id, int attempt);

 private:
  using Place = ObjectPlace;

  struct Connection {
    OwnedFd socket;
    shm::Store* store = nullptr;  // once it has shown its grant
    shm::Store::ClientId client = 0;
    Place place;
  };

  ObjectServer(const Clock& clock, FileSystem& files, ObjectServerOptions options);
  Status open();
  Result<ObjectTieringOptions> tiering_options();
  void accept_one();
  void on_packet(int fd);
  Status answer(Connection& connection, const WorkerPacket& packet);
  Status attach(Connection& connection, std::string_view body);
  Status object_request(Connection& connection, const WorkerPacket& packet);
  Status put_many(Connection& connection, std::string_view body);
  std::string stats_body(const Connection& connection) const;
  void one_way(Connection& connection, const WorkerPacket& packet);
  void drop(int fd);
  Result<Place> place_of(std::string_view body);
  Result<shm::Store*> store_of(const Place& place);
  void make_room_elsewhere(const shm::Store* asking);
  void tick();
  void prepare();

  const Clock& clock_;
  FileSystem& files_;
  const ObjectServerOptions options_;
  shm::Budget budget_;
  WorkerListener listener_;
  std::string master_grant_;
  std::map<Place, std::unique_ptr<shm::Store>> stores_;
  std::map<int, Connection> connections_;
  bool preparing_ = false;

  std::mutex mutex_;
  std::map<Place, std::string> grants_;
  std::map<std::string, Place, std::less<>> places_;  // by grant
  std::set<std::string, std::less<>> actors_;         // "task/attempt"
  Reactor reactor_;                                   // ends before what is above
  std::unique_ptr<ObjectTiering> tiering_;
  std::unique_ptr<ObjectExchange> exchange_;
};

}  // namespace uccp::agent
