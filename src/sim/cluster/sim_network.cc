#include "sim/cluster/sim_network.h"

#include <algorithm>

#include "base/check.h"

namespace uccp::sim {
namespace {

constexpr int64_t kLatencyUsMin = 20;

}  // namespace

SimNetwork::End::End(SimNetwork& network, NodeId id, SimExecutor& loop) : network_(network), id_(id), loop_(loop) {
  network_.ends_[id] = this;
}

SimNetwork::End::~End() {
  if (const auto it = network_.ends_.find(id_); it != network_.ends_.end() && it->second == this) {
    network_.ends_.erase(it);
  }
}

void SimNetwork::End::start(Receiver receiver, PeerDown peer_down) {
  receiver_ = std::move(receiver);
  peer_down_ = std::move(peer_down);
}

void SimNetwork::End::send(NodeId to, NetworkLane lane, std::string frame) {
  network_.transmit(id_, to, lane, std::move(frame));
}

bool SimNetwork::observe(NodeId from, NodeId to, std::string_view frame) const {
  const auto items = node::read_frame(frame);
  UCCP_CHECK(items.has_value(), "a node sends frames that can be read");
  bool repeatable = true;
  for (const node::PeerItem& item : *items) {
    observer_(from, to, item);
    repeatable = repeatable && item.kind != node::PeerItemKind::kRequest;
  }
  return repeatable;
}

int64_t SimNetwork::latency_us(const Link& link) {
  return kLatencyUsMin + link.extra_us +
         static_cast<int64_t>(random_.below(static_cast<uint64_t>(options_.latency_us_max)));
}

std::optional<int64_t> SimNetwork::way_us(NodeId from, NodeId to) {
  const Link& link = links_[{from, to}];
  if (link.cut) return std::nullopt;
  return std::max(latency_us(link), link.clogged_until_us - scheduler_.now_us());
}

void SimNetwork::transmit(NodeId from, NodeId to, NetworkLane lane, std::string frame) {
  Link& link = links_[{from, to}];
  const bool repeatable = observe(from, to, frame);
  sent_bytes_ += frame.size();
  if (link.cut) return;
  if (options_.loss > 0 && random_.chance(options_.loss)) {
    ++lost_;
    return;
  }
  const int64_t taken_us = latency_us(link);
  int64_t& last_us = link.last_us[static_cast<size_t>(lane)];
  last_us = std::max({last_us, scheduler_.now_us() + taken_us, link.clogged_until_us});
  if (repeatable && options_.replay > 0 && random_.chance(options_.replay)) {
    ++replayed_;
    const auto after = static_cast<int64_t>(random_.below(static_cast<uint64_t>(options_.replay_after_us_max)));
    deliver(from, to, last_us + after, frame);
  }
  deliver(from, to, last_us, std::move(frame));
}

void SimNetwork::deliver(NodeId from, NodeId to, int64_t at_us, std::string frame) {
  const auto found = ends_.find(to);
  if (found == ends_.end()) return;  // nobody listens
  End* end = found->second;
  end->loop_.post_at(at_us, [this, end, from, to, frame = std::move(frame)]() mutable {
    if (end->receiver_ && !links_[{from, to}].cut) end->receiver_(from, std::move(frame));
  });
}

void SimNetwork::reset(NodeId node) {
  for (const auto& [id, end] : ends_) {
    if (id == node) continue;
    end->loop_.post([end = end, node] {
      if (end->peer_down_) end->peer_down_(node);
    });
  }
}

void SimNetwork::heal() {
  for (auto& [ends, link] : links_) {
    link.cut = false;
    link.clogged_until_us = 0;
    link.extra_us = 0;
  }
  options_.loss = options_.replay = 0;
}

}  // namespace uccp::sim
