#include "sim/cluster/ambush.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace uccp::sim {
namespace {

// What hurts at once.
constexpr Fault kStrikes[] = {Fault::kKill,  Fault::kCrash, Fault::kPause,  Fault::kIsolate, Fault::kHalfDeaf,
                              Fault::kSplit, Fault::kSplit, Fault::kOneWay, Fault::kClog};
constexpr int64_t kLastsMsMax = 3'000;
// Several elections in a row.
constexpr int64_t kTurnsLastMs = 12'000;
// A victim comes in many frames at the same moment.
constexpr int64_t kRestUs = 20'000;
constexpr int64_t kProvokeUs = 700'000;

}  // namespace

Ambush::Ambush(SimCluster& cluster, Strike strike)
    : cluster_(cluster), random_(cluster.next_seed()), strike_(std::move(strike)) {}

Ambush::Plan Ambush::draw() {
  const auto below = [this](int64_t bound) {
    return static_cast<int64_t>(random_.below(static_cast<uint64_t>(bound)));
  };
  Plan plan;
  const std::vector<GroupId> groups = groups_of(cluster_.options());
  plan.group = groups[random_.below(groups.size())];
  for (Moment& moment : plan.awaited) moment = static_cast<Moment>(below(static_cast<int64_t>(Moment::kCount)));
  plan.fault = kStrikes[below(std::size(kStrikes))];
  plan.by_turns = below(3) == 0;
  plan.share = below(2) == 0 ? 1 : 0.5;
  plan.at_sender = below(5) > 0;
  // Before it arrives, or about when the answer does, or what follows from that.
  const SimOptions& options = cluster_.options();
  plan.delay_us_max = below(4) * options.latency_us_max + below(2) * 2 * (options.disk_us + options.disk_jitter_us);
  return plan;
}

bool Ambush::begin() {
  if (cluster_.now_us() < until_us_) return false;
  plan_ = draw();
  until_us_ = cluster_.now_us() +
              1000 * (plan_.by_turns ? kTurnsLastMs : static_cast<int64_t>(500 + random_.below(kLastsMsMax)));
  leads_on_ = NodeId();
  begun_.clear();
  handed_over_.clear();
  cluster_.tap_wire([this](NodeId from, NodeId to, const node::PeerItem& item) { seen(from, to, item); });
  cluster_.scheduler().schedule_at(until_us_, [this] {
    cluster_.tap_wire(nullptr);
    cut_off(NodeId());
  });
  provoke();
  return true;
}

void Ambush::cut_off(NodeId victim) {
  if (victim == cut_off_) return;
  SimNetwork& network = cluster_.network();
  for (size_t place = 0; place < cluster_.places(); ++place) {
    if (!cluster_.has_node(place)) continue;
    const NodeId other = cluster_.node(place).id();
    if (cut_off_ && other != cut_off_) {
      network.mend(cut_off_, other);
      network.mend(other, cut_off_);
    }
  }
  cut_off_ = victim;
  if (!victim) return;
  for (size_t place = 0; place < cluster_.places(); ++place) {
    if (!cluster_.has_node(place) || cluster_.node(place).id() == victim) continue;
    network.cut(victim, cluster_.node(place).id());
    network.cut(cluster_.node(place).id(), victim);
  }
  cluster_.count_fault(Fault::kIsolate);
  if (cluster_.tracing()) cluster_.note("fault isolate, node " + std::to_string(victim.value) + " in its turn");
}

void Ambush::provoke() {
  if (cluster_.healed() || cluster_.now_us() >= until_us_) return;
  const size_t leader = cluster_.leader(plan_.group);
  if (leader < cluster_.places()) {
    const NodeId id = cluster_.node(leader).id();
    if (plan_.by_turns) provoke_turn(id);
    else {
      switch (plan_.awaited[random_.below(plan_.awaited.size())]) {
        case Moment::kVoteAsked:
        case Moment::kTakesOver:
        case Moment::kInherits: strike_(random_.chance(0.5) ? Fault::kIsolate : Fault::kKill, id); break;
        case Moment::kReconfigures: strike_(Fault::kReplace, id); break;
        case Moment::kHandsOver: strike_(Fault::kTransfer, id); break;
        default: break;
      }
    }
  }
  cluster_.scheduler().schedule_after(kProvokeUs, [this] { provoke(); });
}

// One that leads for longer has nothing left that others lack. It goes on taking orders alone for a while.
void Ambush::provoke_turn(NodeId leader) {
  if (cut_off_ && std::exchange(leads_on_, leader) != leader) return;
  begun_.insert(leader);
  cut_off(leader);
}

// Who leads for the first time is cut off before anybody gets what it has begun. Who is back is cut off when it has
// handed over what it had begun before, and nothing of its new term yet. Whoever was cut off is back when the next one
// is.
void Ambush::take_turn(NodeId from, const raft::Message& message) {
  if (message.kind != raft::MessageKind::kAppend || message.entries.empty() || from == cut_off_) return;
  if (message.entries.front().term < message.term) {
    handed_over_[from] = message.term;
    return;
  }
  if (!begun_.insert(from).second && handed_over_[from] != message.term) return;
  // Never from within a task of the node.
  cluster_.scheduler().schedule_after(0, [this, from] {
    if (!cluster_.healed() && cluster_.now_us() < until_us_) cut_off(from);
  });
}

std::optional<Ambush::Moment> Ambush::moment_of(const raft::Message& message) {
  switch (message.kind) {
    case raft::MessageKind::kVote: return Moment::kVoteAsked;
    case raft::MessageKind::kTimeoutNow: return Moment::kHandsOver;
    case raft::MessageKind::kAppend: break;
    default: return std::nullopt;
  }
  std::optional<Moment> moment;
  for (const Entry& entry : message.entries) {
    if (entry.kind == EntryKind::kConfiguration) return Moment::kReconfigures;
    if (entry.term < message.term) moment = Moment::kInherits;
    else if (entry.kind == EntryKind::kNoop && !moment) moment = Moment::kTakesOver;
  }
  return moment;
}

void Ambush::seen(NodeId from, NodeId to, const node::PeerItem& item) {
  if (cluster_.healed() || item.group != plan_.group) return;
  std::optional<Moment> moment;
  if (item.kind == node::PeerItemKind::kSnapshotChunk) moment = Moment::kSnapshot;
  if (item.kind == node::PeerItemKind::kRaft) {
    const auto message = raft::decode_message(item.body);
    if (!message) return;
    if (plan_.by_turns) return take_turn(from, *message);
    moment = moment_of(*message);
  }
  if (plan_.by_turns || cluster_.now_us() < rest_until_us_) return;
  if (!moment || std::ranges::find(plan_.awaited, *moment) == plan_.awaited.end()) return;
  rest_until_us_ = cluster_.now_us() + kRestUs;
  if (!random_.chance(plan_.share)) return;
  const auto delay_us =
      random_.chance(0.3) ? 0 : static_cast<int64_t>(random_.below(static_cast<uint64_t>(plan_.delay_us_max + 1)));
  // Never from within a task of the node.
  cluster_.scheduler().schedule_after(delay_us, [this, fault = plan_.fault, victim = plan_.at_sender ? from : to] {
    if (!cluster_.healed()) strike_(fault, victim);
  });
}

}  // namespace uccp::sim
