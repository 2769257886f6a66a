// The groups' way to other nodes: gathers what one turn of the loop says to a peer into one frame a lane.
//
// So heartbeats of all groups to one peer travel together. Nothing is promised about delivery. Loop thread only.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <utility>

#include "base/executor.h"
#include "base/metrics.h"
#include "base/network.h"
#include "base/status.h"
#include "node/peer_message.h"

namespace uccp::node {

// A frame is sent at this size, however much more the turn brings.
inline constexpr size_t kPeerFrameBytes = 1u << 20;

class Transport {
 public:
  using Receive = std::function<void(NodeId from, const PeerItem& item)>;
  using PeerDown = std::function<void(NodeId peer)>;

  // `network` may be null: then everything is dropped. Everything passed in must outlive the transport.
  Transport(Executor& loop, Network* network, MetricsRegistry& metrics);

  void start(Receive receive, PeerDown peer_down);
  void send(NodeId to, NetworkLane lane, GroupId group, PeerItemKind kind, std::string_view body);
  // A frame or an item turned out to be garbage, which is dropped. Logged ever more rarely: a peer must not fill the
  // disk.
  void drop_malformed(NodeId from, const Status& why);
  // Sends and delivers nothing more.
  void stop() { stopped_ = true; }

 private:
  void flush();

  Executor& loop_;
  Network* const network_;
  Counter& frames_;
  Counter& bytes_;
  Counter& malformed_;
  uint64_t dropped_ = 0;
  std::map<std::pair<NodeId, NetworkLane>, FrameWriter> pending_;
  bool flush_scheduled_ = false;
  bool stopped_ = false;
};

}  // namespace uccp::node
