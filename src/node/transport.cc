#include "node/transport.h"

#include <bit>

#include "base/log.h"

namespace uccp::node {

Transport::Transport(Executor& loop, Network* network, MetricsRegistry& metrics)
    : loop_(loop),
      network_(network),
      frames_(metrics.counter("uccp_peer_frames_sent_total", "Frames handed to the network for other nodes")),
      bytes_(metrics.counter("uccp_peer_frame_bytes_sent_total", "Bytes of frames handed to the network")),
      malformed_(
          metrics.counter("uccp_peer_frames_malformed_total", "Frames and items from other nodes that were dropped")) {}

void Transport::start(Receive receive, PeerDown peer_down) {
  if (network_ == nullptr) return;
  network_->start(
      [this, receive = std::move(receive)](NodeId from, std::string frame) {
        if (stopped_) return;
        const auto items = read_frame(frame);
        if (!items) return drop_malformed(from, items.error());
        for (const PeerItem& item : *items) {
          if (!stopped_) receive(from, item);
        }
      },
      [this, peer_down = std::move(peer_down)](NodeId peer) {
        if (!stopped_) peer_down(peer);
      });
}

void Transport::drop_malformed(NodeId from, const Status& why) {
  malformed_.add(1);
  // The first, the second, the fourth, ...
  if (!std::has_single_bit(++dropped_)) return;
  log::warn("what a peer sent was dropped",
            {{"peer", from.value}, {"error", why.to_string()}, {"dropped_so_far", dropped_}});
}

void Transport::send(NodeId to, NetworkLane lane, GroupId group, PeerItemKind kind, std::string_view body) {
  if (network_ == nullptr || stopped_) return;
  FrameWriter& frame = pending_[{to, lane}];
  frame.add(group, kind, body);
  if (frame.bytes() >= kPeerFrameBytes) {
    frames_.add(1);
    bytes_.add(frame.bytes());
    return network_->send(to, lane, frame.take());
  }
  if (std::exchange(flush_scheduled_, true)) return;
  loop_.post([this] { flush(); });
}

void Transport::flush() {
  flush_scheduled_ = false;
  if (stopped_) return;
  for (auto& [key, frame] : pending_) {
    if (frame.empty()) continue;
    frames_.add(1);
    bytes_.add(frame.bytes());
    network_->send(key.first, key.second, frame.take());
  }
}

}  // namespace uccp::node
