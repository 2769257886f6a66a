// Compares the digests that the replicas of a group have at the same index. Loop thread only.
#pragma once

#include <cstdint>
#include <map>
#include <optional>

#include "node/peer_message.h"
#include "raft/membership.h"

namespace uccp::node {

class DigestCheck {
 public:
  // What this replica has at `index`.
  void own(LogIndex index, const Digest& digest);
  // A verdict on this replica. True: its state is not that of the majority.
  bool contradicts(const DigestReport& verdict) const;
  // On the leader: a replica's report, its own included. Answers a verdict when digests differ.
  std::optional<DigestReport> report(NodeId from, const DigestReport& report, const raft::Membership& membership);
  // The state was replaced.
  void clear();

 private:
  std::map<LogIndex, Digest> own_;
  std::map<LogIndex, std::map<NodeId, Digest>> reports_;
};

}  // namespace uccp::node
