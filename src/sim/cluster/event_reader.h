// Reads the topics of the simulation through streams of any node, which break, and goes on from a cursor: mostly from
// the last one, sometimes from an earlier one, sometimes from the beginning.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "sim/cluster/sim_client.h"

namespace uccp::sim {

class EventReader final : public SimClient {
 public:
  EventReader(SimCluster& cluster, size_t number);

  void start() override;
  bool finished() const override { return true; }
  // From now on the stream is one of the node at the place, from the beginning of what is kept.
  void read_all(size_t place);
  // What it was told since then.
  size_t stream() const { return checked_; }

 private:
  class Stream;
  friend class Stream;
  // A cursor, and what was read when it came.
  struct Seen {
    std::string cursor;
    EventChecker::Positions positions;
  };

  void poll();
  void open(const Seen& from, size_t place);
  void take(const std::string& bytes);

  static constexpr size_t kSeenMax = 50;

  std::shared_ptr<Stream> stream_;
  SimNode* node_ = nullptr;
  uint64_t generation_ = 0;
  size_t checked_ = 0;  // the checker's number of the stream
  Seen last_;
  std::vector<Seen> seen_;
  bool whole_ = false;
};

}  // namespace uccp::sim
