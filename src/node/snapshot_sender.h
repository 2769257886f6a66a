// Sends the state of a group to followers whose log is too far behind. The receiver pulls, so it sets the pace.
//
// One session a peer: a view of the state at one position, read in chunks on an executor of its own, a window of them
// in memory until they are acknowledged. A lost chunk or connection costs what was not acknowledged. The log behind the
// position has to stay while the session lives: see oldest(). Loop thread only.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/executor.h"
#include "base/metrics.h"
#include "machine/snapshot.h"
#include "node/peer_message.h"

namespace uccp::node {

class SnapshotSender {
 public:
  struct Environment {
    Executor& loop;
    Executor& reads;
    std::function<machine::SnapshotReader()> state;  // of the group, as it is applied now
    std::function<void(NodeId, const SnapshotChunk&)> send;
    std::function<void(NodeId, LogPosition)> offer;
    std::function<void(NodeId, bool installed)> ended;
    std::function<void(NodeId)> again;  // the peer lost what it had: another snapshot is to be prepared for it
    Counter& bytes;
  };

  explicit SnapshotSender(Environment environment) : env_(std::move(environment)) {}

  // The peer needs a snapshot: offers the one under way, or a new one.
  void want(NodeId peer);
  void pull(NodeId peer, const SnapshotPull& pull);
  void end(NodeId peer, const SnapshotEnd& end);
  void tick();
  // This node leads no longer.
  void clear() { sessions_.clear(); }
  bool idle() const { return sessions_.empty(); }
  // The least position under way; 0: none.
  LogIndex oldest() const;

 private:
  struct Session;
  using Link = std::shared_ptr<Session>;

  void fill(NodeId peer, const Link& session);
  void take(NodeId peer, const Link& session, std::string chunk);
  void send_window(NodeId peer, Session& session);

  Environment env_;
  std::map<NodeId, Link> sessions_;
};

}  // namespace uccp::node
