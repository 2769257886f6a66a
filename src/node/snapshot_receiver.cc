#include "node/snapshot_receiver.h"

#include "base/log.h"

namespace uccp::node {
namespace {

constexpr uint32_t kPullTicks = 5;
constexpr uint32_t kIdleTicksMax = 200;

}  // namespace

void SnapshotReceiver::begin(NodeId leader, LogPosition position) {
  if (transfer_ && transfer_->installing) return;
  const bool resumed = transfer_ && transfer_->leader == leader && transfer_->position == position;
  if (!resumed) {
    transfer_.reset();
    transfer_.emplace(leader, position, machine::SnapshotWriter(env_.group, env_.kv, env_.spare_slot()));
    log::info("fetching a snapshot",
              {{"group", env_.group.value}, {"leader", leader.value}, {"index", position.index.value}});
  }
  pull();
}

void SnapshotReceiver::pull() {
  transfer_->idle_ticks = 0;
  env_.send_pull(transfer_->leader, {transfer_->position, transfer_->writer.next()});
}

void SnapshotReceiver::chunk(NodeId from, const SnapshotChunk& chunk) {
  if (!transfer_ || transfer_->installing || from != transfer_->leader || chunk.position != transfer_->position) return;
  // One that was repeated, or follows a lost one.
  if (machine::snapshot_chunk_number(chunk.data) != transfer_->writer.next()) return;
  if (const Status status = transfer_->writer.add(chunk.data); !status.is_ok()) {
    log::error("a snapshot was refused", {{"group", env_.group.value}, {"error", status.to_string()}});
    return finished(false);
  }
  if (!transfer_->writer.complete()) return pull();
  if (transfer_->writer.header().position != transfer_->position) return finished(false);
  transfer_->installing = true;
  env_.install(transfer_->writer.header());
}

void SnapshotReceiver::finished(bool installed) {
  if (!transfer_) return;
  env_.send_end(transfer_->leader, {transfer_->position, installed});
  transfer_.reset();
}

void SnapshotReceiver::tick() {
  if (!transfer_ || transfer_->installing) return;
  if (++transfer_->idle_ticks > kIdleTicksMax) return transfer_.reset();
  if (transfer_->idle_ticks % kPullTicks == 0)
    env_.send_pull(transfer_->leader, {transfer_->position, transfer_->writer.next()});
}

}  // namespace uccp::node
