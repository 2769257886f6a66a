#include "node/snapshot_sender.h"

#include <algorithm>

#include "base/log.h"

namespace uccp::node {
namespace {

constexpr size_t kWindowChunks = 8;
// Ticks without a pull: the offer is repeated, or the session given up.
constexpr uint32_t kOfferTicks = 5;
constexpr uint32_t kIdleTicksMax = 100;

}  // namespace

struct SnapshotSender::Session {
  explicit Session(machine::SnapshotReader r) : reader(std::move(r)) {}

  machine::SnapshotReader reader;  // on the reads executor while `reading`
  LogPosition position;
  std::deque<std::string> chunks;  // read and not acknowledged
  uint64_t first = 0;              // number of chunks.front()
  uint64_t sent = 0;               // chunks before this one were sent
  uint64_t read = 0;               // chunks before this one were read
  uint64_t wanted = 0;             // chunks before this one are not needed
  uint64_t last_pull = UINT64_MAX;
  bool reading = false;
  bool whole = false;  // the last chunk was read
  uint32_t idle_ticks = 0;
};

void SnapshotSender::want(NodeId peer) {
  Link& session = sessions_[peer];
  if (!session) {
    session = std::make_shared<Session>(env_.state());
    session->position = session->reader.header().position;
    log::info("sending a snapshot", {{"peer", peer.value}, {"index", session->position.index.value}});
  }
  env_.offer(peer, session->position);
}

void SnapshotSender::pull(NodeId peer, const SnapshotPull& pull) {
  const auto found = sessions_.find(peer);
  if (found == sessions_.end() || found->second->position != pull.position) return;
  const Link session = found->second;
  if (pull.next < session->first) {
    if (pull.next > 0) return;  // an old one
    // The receiver lost what it had acknowledged. The state has moved on since this snapshot was prepared.
    sessions_.erase(found);
    return env_.again(peer);
  }
  session->idle_ticks = 0;
  // A receiver may be ahead of this session: it has begun with an earlier one at the same position.
  session->wanted = std::max(session->wanted, pull.next);
  for (; session->first < pull.next && !session->chunks.empty(); ++session->first) session->chunks.pop_front();
  session->sent = std::max(session->sent, session->first);
  if (pull.next == session->last_pull) session->sent = pull.next;
  session->last_pull = pull.next;
  send_window(peer, *session);
  fill(peer, session);
}

void SnapshotSender::send_window(NodeId peer, Session& session) {
  for (; session.sent < session.first + session.chunks.size(); ++session.sent) {
    const std::string& chunk = session.chunks[session.sent - session.first];
    env_.bytes.add(chunk.size());
    env_.send(peer, {session.position, chunk});
  }
}

void SnapshotSender::fill(NodeId peer, const Link& session) {
  if (session->reading || session->whole || session->chunks.size() >= kWindowChunks) return;
  session->reading = true;
  env_.reads.post([this, peer, session] {
    std::string chunk = session->reader.next();
    env_.loop.post(
        [this, peer, session, chunk = std::move(chunk)]() mutable { take(peer, session, std::move(chunk)); });
  });
}

void SnapshotSender::take(NodeId peer, const Link& session, std::string chunk) {
  session->reading = false;
  session->whole = session->reader.done();
  const auto found = sessions_.find(peer);
  if (found == sessions_.end() || found->second != session) return;
  if (session->read++ < session->wanted) {
    session->first = session->sent = session->read;
    return fill(peer, session);
  }
  session->chunks.push_back(std::move(chunk));
  send_window(peer, *session);
  fill(peer, session);
}

void SnapshotSender::end(NodeId peer, const SnapshotEnd& end) {
  const auto found = sessions_.find(peer);
  if (found == sessions_.end() || found->second->position != end.position) return;
  sessions_.erase(found);
  log::info(end.installed ? "a snapshot was installed" : "a snapshot was not installed",
            {{"peer", peer.value}, {"index", end.position.index.value}});
  env_.ended(peer, end.installed);
}

void SnapshotSender::tick() {
  for (auto it = sessions_.begin(); it != sessions_.end();) {
    const NodeId peer = it->first;
    Session& session = *it->second;
    ++session.idle_ticks;
    if (session.idle_ticks > kIdleTicksMax) {
      it = sessions_.erase(it);
      env_.ended(peer, false);
      continue;
    }
    if (session.idle_ticks % kOfferTicks == 0) env_.offer(peer, session.position);
    ++it;
  }
}

LogIndex SnapshotSender::oldest() const {
  LogIndex oldest;
  for (const auto& [peer, session] : sessions_) {
    if (!oldest || session->position.index < oldest) oldest = session->position.index;
  }
  return oldest;
}

}  // namespace uccp::node
