// Faults at the moments at which a mistake in consensus would show, seen on the wire: a new leader's first entry, an
// entry that an earlier leader left, a change of the members, an order to take over. What is rare by the clock is the
// rule here.
//
// An ambush by turns brings about what figure 8 of the Raft paper shows: leaders that begin what they cannot finish,
// and come back one after the other.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>

#include "base/random.h"
#include "raft/message.h"
#include "sim/cluster/sim_cluster.h"

namespace uccp::sim {

class Ambush {
 public:
  using Strike = std::function<void(Fault fault, NodeId victim)>;

  Ambush(SimCluster& cluster, Strike strike);

  // Waits for moments of one kind, for a while. False if it waits already.
  bool begin();

 private:
  enum class Moment : uint8_t {
    kVoteAsked,
    kTakesOver,     // the first entry of a term
    kInherits,      // a leader sends an entry of an earlier term
    kReconfigures,  // a configuration is sent
    kHandsOver,     // another node is told to campaign
    kSnapshot,      // a chunk of one is sent
    kCount,
  };
  // Cuts the node off, and lets go whoever was before it; node 0: only that.
  void cut_off(NodeId victim);
  static std::optional<Moment> moment_of(const raft::Message& message);
  void seen(NodeId from, NodeId to, const node::PeerItem& item);
  void take_turn(NodeId from, const raft::Message& message);
  // Brings such a moment about, again and again until the end.
  void provoke();
  void provoke_turn(NodeId leader);

  // One for all strikes of an ambush: what takes several of the same kind in a row is likely then.
  struct Plan {
    GroupId group;
    std::array<Moment, 2> awaited;  // either
    Fault fault;
    bool by_turns;         // instead: take_turn()
    double share;          // of the moments
    bool at_sender;        // or at the receiver
    int64_t delay_us_max;  // between moment and strike
  };
  Plan draw();

  SimCluster& cluster_;
  SeededRandom random_;
  const Strike strike_;
  Plan plan_{};
  NodeId cut_off_;
  NodeId leads_on_;                     // led at the last look, and was not cut off
  std::set<NodeId> begun_;              // were cut off with entries that nobody else has
  std::map<NodeId, Term> handed_over_;  // the term in which a leader sent entries of earlier ones
  int64_t until_us_ = 0;
  int64_t rest_until_us_ = 0;
};

}  // namespace uccp::sim
