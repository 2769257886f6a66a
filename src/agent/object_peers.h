// Shared objects between agents: the door by which others read objects of this machine, and how this one reads theirs.
//
// A connection is TLS with a certificate that the door made for itself; a location says which. Who reads shows the
// grant of a namespace. Content travels in chunks with checksums, and is written where it will lie. Thread: calls
// block, on threads of their own; ObjectHouse is called by them.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "agent/object_frames.h"
#include "runtime/blocking_stream.h"

namespace uccp::agent {

using PeerId = std::string;  // 16 random bytes of an agent's run

// Which references another agent takes and gives back. All that it has last for a while from the last time on.
struct PeerLeases {
  PeerId peer;
  std::string grant;
  std::vector<shm::ObjectId> taken, released;
};

// An object that a peer wants.
struct PeerWish {
  std::string grant;
  shm::ObjectId id{};
};

// What the door asks whoever has the objects. Called on the door's threads.
class ObjectHouse {
 public:
  // Content that stays where it is until this is gone.
  class Open {
   public:
    virtual ~Open() = default;
    virtual std::string_view content() const = 0;
  };

  virtual ~ObjectHouse() = default;
  virtual Result<std::unique_ptr<Open>> open(const PeerWish& wish) = 0;
  // Where else the object is.
  virtual std::vector<ObjectLocation> copies(const PeerWish& wish) = 0;
  virtual Status lease(const PeerLeases& leases) = 0;
  // A peer has all of it now.
  virtual void has_copy(const PeerWish& wish, const ObjectLocation& where) = 0;
  virtual void has_served(const PeerWish& wish, uint64_t bytes) = 0;
};

struct ObjectDoorOptions {
  std::string listen = "127.0.0.1:0";
  std::string advertised;  // host that others reach it by; empty: that of `listen`
  int64_t timeout_ms = 30'000;
  size_t connections_max = 64;
};

class ObjectDoor {
 public:
  // `house` must outlive it. Errors: unavailable LISTEN_FAILED; invalid ADDRESS_INVALID.
  static Result<std::unique_ptr<ObjectDoor>> open(ObjectDoorOptions options, WallTime now, ObjectHouse& house);
  ~ObjectDoor() { stop(); }

  // Ends all connections; nobody calls accept_one() any more.
  void stop();

  const std::string& address() const { return address_; }
  const std::string& authority() const { return authority_; }
  // To be called when it is readable, by one thread.
  int socket() const { return listener_.socket.get(); }
  void accept_one();

 private:
  struct Guest {
    std::thread thread;
    std::shared_ptr<runtime::BlockingStream> stream;  // once there is one
    bool over = false;
  };

  ObjectDoor(ObjectDoorOptions options, ObjectHouse& house) : options_(std::move(options)), house_(house) {}
  void serve(uint64_t number, runtime::OwnedFd socket);
  Status talk(runtime::BlockingStream& stream);
  void join_ended();

  const ObjectDoorOptions options_;
  ObjectHouse& house_;
  runtime::TcpListener listener_;
  runtime::TlsContext tls_;
  std::string address_, authority_;
  std::mutex mutex_;
  bool ending_ = false;
  uint64_t next_guest_ = 1;
  std::map<uint64_t, Guest> guests_;
};

// This agent, as a reader of others' objects.
struct PeerReader {
  PeerId id;
  ObjectLocation here;  // where others find what it has read
  int64_t timeout_ms = 30'000;
};

// The streams of calls that are under way, so that they can be ended from elsewhere.
class PeerStreams {
 public:
  // Errors: unavailable STOPPED, and those of BlockingStream.
  Result<std::shared_ptr<runtime::BlockingStream>> connect(const ObjectLocation& where, int64_t timeout_ms);
  // Ends all, and refuses new ones.
  void stop();

 private:
  std::mutex mutex_;
  bool stopped_ = false;
  std::vector<std::weak_ptr<runtime::BlockingStream>> streams_;
};

// Fetches an object from the nearest of who has it: `begin` is told the size and answers where the content goes. The
// owner is told of the copy. Errors: those of `begin`; not_found OBJECT_UNKNOWN; corruption OBJECT_LOST, CHUNK_DAMAGED;
// unavailable CONNECTION_FAILED and the like.
Status fetch_object(PeerStreams& streams, const PeerReader& reader, const ObjectLocation& owner,
                    const shm::ObjectId& id, const std::function<Result<std::span<char>>(uint64_t size)>& begin);
// Takes and gives back references at who has the objects. Errors: as above.
Status send_leases(PeerStreams& streams, const ObjectLocation& owner, const PeerLeases& leases, int64_t timeout_ms);

}  // namespace uccp::agent
