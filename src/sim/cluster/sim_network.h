// The network between the nodes of a simulated cluster.
//
// Frames of one lane from one node to another keep their order, as on a connection; between lanes and peers nothing is
// promised. Faults: frames are lost, come late or come once more much later; a direction is cut or clogged; a node's
// connections break. What carries requests of operators is not repeated: no node repeats it, and TLS lets nobody else.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include "base/network.h"
#include "base/random.h"
#include "node/peer_message.h"
#include "sim/sim_executor.h"

namespace uccp::sim {

struct SimNetworkOptions {
  int64_t latency_us_max = 500;
  double loss = 0;    // share of frames
  double replay = 0;  // share of frames that come again
  int64_t replay_after_us_max = 3'000'000;
};

class SimNetwork {
 public:
  // Told every item of every frame that a node sends.
  using Observer = std::function<void(NodeId from, NodeId to, const node::PeerItem& item)>;

  SimNetwork(SimScheduler& scheduler, SimNetworkOptions options, uint64_t seed, Observer observer)
      : scheduler_(scheduler), options_(options), random_(seed), observer_(std::move(observer)) {}

  // The end of one process; frames to it are received on its loop.
  class End final : public Network {
   public:
    End(SimNetwork& network, NodeId id, SimExecutor& loop);
    ~End() override;
    void start(Receiver receiver, PeerDown peer_down) override;
    void send(NodeId to, NetworkLane lane, std::string frame) override;

   private:
    friend class SimNetwork;
    SimNetwork& network_;
    const NodeId id_;
    SimExecutor& loop_;
    Receiver receiver_;
    PeerDown peer_down_;
  };

  // Faults; each holds in the direction named.
  void cut(NodeId from, NodeId to) { links_[{from, to}].cut = true; }
  void mend(NodeId from, NodeId to) { links_[{from, to}].cut = false; }
  // What is sent until then arrives then, in order.
  void clog(NodeId from, NodeId to, int64_t until_us) { links_[{from, to}].clogged_until_us = until_us; }
  // Messages take so much longer.
  void slow(NodeId from, NodeId to, int64_t us) { links_[{from, to}].extra_us = us; }
  // The other nodes learn that their connections to this one broke.
  void reset(NodeId node);
  // Everything is whole from now on.
  void heal();
  // How long something else that is sent now is on its way, such as a forwarded call; nothing: it does not arrive.
  std::optional<int64_t> way_us(NodeId from, NodeId to);

  uint64_t lost() const { return lost_; }
  // Of all frames so far.
  uint64_t sent_bytes() const { return sent_bytes_; }
  uint64_t replayed() const { return replayed_; }

 private:
  struct Link {
    bool cut = false;
    int64_t clogged_until_us = 0;
    int64_t extra_us = 0;
    int64_t last_us[2] = {0, 0};  // by lane: when the frame before arrives
  };
  int64_t latency_us(const Link& link);
  void transmit(NodeId from, NodeId to, NetworkLane lane, std::string frame);
  void deliver(NodeId from, NodeId to, int64_t at_us, std::string frame);
  // Tells the observer; true if the frame may come again.
  bool observe(NodeId from, NodeId to, std::string_view frame) const;

  SimScheduler& scheduler_;
  SimNetworkOptions options_;
  SeededRandom random_;
  const Observer observer_;
  std::map<NodeId, End*> ends_;
  std::map<std::pair<NodeId, NodeId>, Link> links_;
  uint64_t lost_ = 0;
  uint64_t sent_bytes_ = 0;
  uint64_t replayed_ = 0;
};

}  // namespace uccp::sim
