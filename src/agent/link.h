// The agent's side of AgentLink, without the wire: what the core of the agent needs from a connection to the cluster.
//
// Invariants: between link_up() and link_down() received() delivers messages in the order in which the cluster sent
// them; send() keeps order; nothing sent is known to have arrived. The link connects again by itself, with backoff.
// Thread: all calls and callbacks on the agent's loop; nothing blocks.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/status.h"
#include "services/objects/blob_store.h"
#include "uccp/internal/v1/agent.pb.h"

namespace uccp::agent {

namespace wire = ::uccp::internal::v1;
namespace api = ::uccp::v1;

class LinkObserver {
 public:
  virtual ~LinkObserver() = default;
  // A stream is being opened, and messages are queued for it; the first one has to be Hello. Only an answer says that
  // there is somebody.
  virtual void link_up() = 0;
  virtual void link_down(const Status& why) = 0;
  virtual void received(wire::ServerMessage message) = 0;
  // Less than kLinkQueueBytes wait to be sent, after more had waited.
  virtual void writable() = 0;
};

// Log followers stop above this many bytes that wait to be sent.
inline constexpr size_t kLinkQueueBytes = 1u << 20;

// Content to store: a file, or `data` if `path` is empty.
struct BlobSource {
  std::string sha256;
  uint64_t size = 0;
  std::string path;
  std::string data;
};

class ServerLink {
 public:
  using Done = std::move_only_function<void(Status)>;

  virtual ~ServerLink() = default;
  // `observer` must outlive the link, or stop() must be called before it goes.
  virtual void start(LinkObserver& observer) = 0;
  virtual void stop() = 0;
  // Dropped while the link is down.
  virtual void send(wire::AgentMessage message) = 0;
  virtual size_t queued_bytes() const = 0;
  // Gives the present stream up and connects again after the backoff.
  virtual void reconnect(const std::string& why) = 0;
  // Errors: unavailable when the link is down or broke; else what the cluster answered.
  virtual void put_blob(BlobSource source, const wire::AttemptId& attempt, Done done) = 0;
  virtual void get_blob(const std::string& sha256, const wire::AttemptId& attempt,
                        std::unique_ptr<objects::BlobWriter> into, Done done) = 0;
};

}  // namespace uccp::agent
