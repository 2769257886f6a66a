// Fetches a snapshot from the leader into the spare slot of a group's state. The state in use stays as it is until the
// snapshot is whole, so a crash or a failed transfer costs nothing but the transfer. Loop thread only.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "machine/snapshot.h"
#include "node/peer_message.h"

namespace uccp::node {

class SnapshotReceiver {
 public:
  struct Environment {
    GroupId group;
    storage::Kv& kv;
    std::function<machine::StateSlot()> spare_slot;
    std::function<void(NodeId, const SnapshotPull&)> send_pull;
    std::function<void(NodeId, const SnapshotEnd&)> send_end;
    // The spare slot holds this snapshot; finished() has to be called when it is in use or refused.
    std::function<void(const machine::SnapshotHeader&)> install;
  };

  explicit SnapshotReceiver(Environment environment) : env_(std::move(environment)) {}

  // The leader offers what is needed here. Goes on where an interrupted transfer of the same snapshot stopped.
  void begin(NodeId leader, LogPosition position);
  void chunk(NodeId from, const SnapshotChunk& chunk);
  void finished(bool installed);
  // The slot that is written to is needed for something else: starts over when the leader offers again. Requires that
  // no installation is under way.
  void give_way() { transfer_.reset(); }
  void tick();
  bool idle() const { return !transfer_; }

 private:
  struct Transfer {
    NodeId leader;
    LogPosition position;
    machine::SnapshotWriter writer;
    uint32_t idle_ticks = 0;
    bool installing = false;
  };
  void pull();

  Environment env_;
  std::optional<Transfer> transfer_;
};

}  // namespace uccp::node
