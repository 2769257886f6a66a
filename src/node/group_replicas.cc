// The replicas of a group among each other: what comes from peers, snapshots, and the comparison of digests.
#include <algorithm>

#include "base/log.h"
#include "node/group.h"

namespace uccp::node {
namespace {

// A broken connection to the leader makes its followers campaign after a random delay up to this.
constexpr uint64_t kCampaignDelayMs = 100;
constexpr uint32_t kCampaignAttempts = 8;
constexpr uint32_t kSilenceChecks = 3;

}  // namespace

void Group::send(NodeId to, PeerItemKind kind, const std::string& body, NetworkLane lane) {
  env_.transport.send(to, lane, id_, kind, body);
}

void Group::send_raft(const raft::Message& message) {
  const bool packed = packs_entries();
  if (packed && !message.entries.empty()) packing_.count_sent(message);
  const auto form = packed ? raft::EntryForm::kPacked : raft::EntryForm::kPlain;
  send(message.to, PeerItemKind::kRaft, raft::encode_message(message, form));
}

void Group::catch_up_soon() {
  if (std::exchange(catch_up_scheduled_, true)) return;
  env_.loop.post_after(options_.follower_delay_ms, [this] {
    catch_up_scheduled_ = false;
    if (!closed_) step(raft::CatchUp{});
  });
}

void Group::receive(NodeId from, const PeerItem& item) {
  if (closed_) return;
  const auto with = [this, from](auto decoded, auto&& handle) {
    if (decoded) return handle(*decoded);
    env_.transport.drop_malformed(from, decoded.error());
  };
  switch (item.kind) {
    case PeerItemKind::kRaft: return receive_raft(from, item.body);
    case PeerItemKind::kRequest: return with(decode_request(item.body), [&](auto& r) { take_request(from, r); });
    case PeerItemKind::kReply: return with(decode_reply(item.body), [&](auto& r) { take_reply(from, std::move(r)); });
    case PeerItemKind::kSnapshotPull: return with(decode_pull(item.body), [&](auto& p) { sender_.pull(from, p); });
    case PeerItemKind::kSnapshotChunk: return with(decode_chunk(item.body), [&](auto& c) { receiver_.chunk(from, c); });
    case PeerItemKind::kSnapshotEnd: return with(decode_end(item.body), [&](auto& e) { sender_.end(from, e); });
    case PeerItemKind::kDigest: return with(decode_report(item.body), [&](auto& d) { take_digest(from, d); });
    case PeerItemKind::kVerdict:
      return with(decode_report(item.body), [&](auto& v) {
        if (from == core_->leader()) take_verdict(v);
      });
  }
}

void Group::receive_raft(NodeId from, std::string_view body) {
  auto message = raft::decode_message(body);
  if (!message) return env_.transport.drop_malformed(from, message.error());
  if (message->from != from || message->to != options_.raft.id) {
    return env_.transport.drop_malformed(
        from, Status(Code::kInvalid, "RAFT_MESSAGE_MISDIRECTED", "a raft message names another sender or receiver"));
  }
  if (const Status unpacked = unpack_entries(*message); !unpacked.is_ok())
    return env_.transport.drop_malformed(from, unpacked);
  if (from == core_->leader()) ++leader_heard_;
  step(raft::Receive{std::move(*message)});
}

void Group::peer_down(NodeId peer) {
  if (closed_) return;
  step(raft::Unreachable{peer});
  // A leader that was killed is replaced without waiting for a timeout. Pre-votes keep a leader that is alive in place,
  // because the others still hear it. Not with leases: they rely on nobody campaigning early.
  if (peer != core_->leader() || options_.raft.lease_reads || !options_.raft.pre_vote) return;
  campaign_without(peer, kSilenceChecks);
}

// Campaigns unless the leader is heard again. What it sent before its end may still be on its way.
void Group::campaign_without(NodeId leader, uint32_t attempts) {
  if (attempts == 0) return;
  const auto delay_ms = static_cast<int64_t>(env_.random.below(kCampaignDelayMs));
  env_.loop.post_after(delay_ms, [this, leader, attempts, heard = leader_heard_] {
    if (closed_ || leader != core_->leader()) return;
    if (heard != leader_heard_) return campaign_without(leader, attempts - 1);
    log::info("the connection to the leader ended", {{"group", name_}, {"leader", leader.value}});
    step(raft::Campaign{});
    campaign_soon(kCampaignAttempts);
  });
}

// The first attempt fails if the other voters have not noticed yet, or if this node's log is too short to win.
void Group::campaign_soon(uint32_t attempts) {
  if (attempts == 0) return;
  const auto delay_ms = static_cast<int64_t>(kCampaignDelayMs / 2 + env_.random.below(kCampaignDelayMs));
  env_.loop.post_after(delay_ms, [this, attempts] {
    if (closed_ || core_->leader()) return;
    const raft::Role role = core_->role();
    if (role == raft::Role::kFollower || role == raft::Role::kPreCandidate) step(raft::Campaign{});
    campaign_soon(attempts - 1);
  });
}

SnapshotSender::Environment Group::sender_environment() {
  return {
      .loop = env_.loop,
      .reads = env_.reads,
      .state = [this] { return machine::SnapshotReader(machine_.snapshot_header(), fresh_view(), options_.snapshot); },
      .send =
          [this](NodeId to, const SnapshotChunk& chunk) {
            send(to, PeerItemKind::kSnapshotChunk, encode(chunk), NetworkLane::kBulk);
          },
      .offer = [this](NodeId to, LogPosition position) { step(raft::SnapshotOffer{to, position}); },
      .ended = [this](NodeId to, bool installed) { step(raft::SnapshotStatus{to, installed}); },
      .again = [this](NodeId to) { offer_snapshot(to); },
      .bytes = env_.metrics.counter("uccp_snapshot_bytes_sent_total", "Bytes of snapshots sent to other nodes",
                                    {{"group", name_}}),
  };
}

SnapshotReceiver::Environment Group::receiver_environment() {
  return {
      .group = id_,
      .kv = kv_,
      .spare_slot = [this] { return machine_.spare_slot(); },
      .send_pull = [this](NodeId to, const SnapshotPull& pull) { send(to, PeerItemKind::kSnapshotPull, encode(pull)); },
      .send_end = [this](NodeId to, const SnapshotEnd& end) { send(to, PeerItemKind::kSnapshotEnd, encode(end)); },
      .install = [this](const machine::SnapshotHeader& header) { install(header); },
  };
}

void Group::install(const machine::SnapshotHeader& header) {
  auto membership = raft::decode_membership(header.membership);
  // The log may have caught up meanwhile; the state never goes back.
  if (!membership || header.position.index <= machine_.applied()) return receiver_.finished(false);
  if (const Status status = machine_.switch_slot(header.position); !status.is_ok()) return env_.fatal(status);
  installing_ = true;
  caught_up_ = false;
  env_.disk.run([this] { return kv_.flush(); },
                [this, header, membership = std::move(*membership)] { finish_install(header, membership); });
}

void Group::finish_install(const machine::SnapshotHeader& header, const raft::Membership& membership) {
  if (closed_) return;
  if (const Status status = machine_.open(); !status.is_ok()) return env_.fatal(status);
  installing_ = false;
  digests_.clear();
  commit_ = std::max(commit_, machine_.applied());
  flushed_at_ = machine_.applied();
  log::info("a snapshot is in use", {{"group", name_}, {"index", header.position.index.value}});
  env_.publish(id_, machine_.view());
  env_.changes.resync(id_);
  step(raft::SnapshotInstalled{header.position, membership});
  receiver_.finished(true);
  cache_.release(machine_.applied());
  serve_reads();
  schedule_apply();
}

void Group::compare_digest() {
  const LogIndex index = machine_.applied();
  digests_.own(index, machine_.digest());
  const DigestReport report{index, machine_.digest()};
  if (leads()) return take_digest(options_.raft.id, report);
  if (core_->leader()) send(core_->leader(), PeerItemKind::kDigest, encode(report));
}

void Group::take_digest(NodeId from, const DigestReport& report) {
  if (!leads()) return;
  const auto verdict = digests_.report(from, report, core_->membership());
  if (!verdict) return;
  log::error("replicas differ", {{"group", name_},
                                 {"index", report.index.value},
                                 {"node", from.value},
                                 {"digest", report.digest.to_string()},
                                 {"majority", verdict->majority}});
  for (NodeId member : core_->membership().members()) {
    if (member != options_.raft.id) send(member, PeerItemKind::kVerdict, encode(*verdict));
  }
  take_verdict(*verdict);
}

void Group::take_verdict(const DigestReport& verdict) {
  read_only_ = !verdict.majority;
  if (read_only_)
    log::error("the group takes no changes: its replicas differ and none has a majority", {{"group", name_}});
  if (!digests_.contradicts(verdict)) return;
  // After this turn: whoever called may go on using the core.
  env_.loop.post([this, index = verdict.index] {
    if (closed_) return;
    close();
    env_.fatal(Status(Code::kCorruption, "DIGEST_MISMATCH",
                      "the state of group " + name_ + " on this node differs from the majority's at index " +
                          std::to_string(index.value) + "; remove this node, wipe its data and add it again"));
  });
}

}  // namespace uccp::node
