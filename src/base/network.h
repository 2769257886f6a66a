// Frames between the nodes of a cluster. Delivery may fail, repeat nothing and keep the order of one lane to one peer.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/ids.h"

namespace uccp {

// Lanes have separate queues, so that a large snapshot never delays a heartbeat.
enum class NetworkLane : uint8_t { kControl = 0, kBulk = 1 };

class Network {
 public:
  // `from` is the authenticated id of the sender. Called on the executor that the implementation was given.
  using Receiver = std::move_only_function<void(NodeId from, std::string frame)>;
  // The connection to a peer went away; frames handed over before may be lost.
  using PeerDown = std::move_only_function<void(NodeId peer)>;

  virtual ~Network() = default;
  virtual void start(Receiver receiver, PeerDown peer_down) = 0;
  // Never blocks. A frame is dropped when the peer is unknown or unreachable, or its queue is full.
  virtual void send(NodeId to, NetworkLane lane, std::string frame) = 0;
};

}  // namespace uccp
