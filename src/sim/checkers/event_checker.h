// What is published to topics: each place of a partition holds one event for ever, what was acknowledged is there, once
// and where the answer said; events of a key stay in their order; a stream shows each partition without gap or
// repetition, and one that goes on from a cursor begins right behind it. Of a topic that is compacted, what a stream
// leaves out was replaced by a later event of its key.
//
// Publishers name their events "<key>#<number>" and publish the numbers of a key one after the other.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sim/checkers/violations.h"

namespace uccp::sim {

class EventChecker {
 public:
  struct Place {
    std::string topic;
    int32_t partition = 0;
    auto operator<=>(const Place&) const = default;
  };
  // The topic that is compacted.
  static constexpr std::string_view kCompactedTopic = "last.events";
  // The next offset of each partition, where a stream is.
  using Positions = std::map<Place, uint64_t>;

  explicit EventChecker(Violations& violations) : violations_(violations) {}

  // The answer of a Publish. `duplicate`: it said that the event was there already.
  void acknowledged(const Place& place, uint64_t offset, const std::string& event, bool duplicate);

  // A stream that begins at these positions; partitions that are not named it shows from wherever they begin.
  size_t opened(Positions from);
  // Returns the next offset of the partition.
  void told(size_t stream, const Place& place, uint64_t offset, const std::string& event);
  const Positions& positions(size_t stream) const { return streams_[stream].at; }

  // Everything acknowledged was shown by the stream, which began with the first event of each partition.
  void check_complete(size_t stream);
  // Each event is in one place, and those of a key are in their order.
  void check_order();
  // No stream left out an event of the compacted topic that is the newest of its key.
  void check_compaction();
  const std::vector<std::pair<Place, uint64_t>>& all_acknowledged() const { return acknowledged_; }

 private:
  struct Stream {
    Positions at;
    std::map<Place, uint64_t> first;
  };
  // From and to behind it, of what a stream left out.
  struct Gap {
    size_t stream = 0;
    Place place;
    uint64_t from = 0;
    uint64_t to = 0;
  };
  bool was_replaced(const Place& place, uint64_t offset) const;
  void observe(const Place& place, uint64_t offset, const std::string& event, const std::string& who);

  Violations& violations_;
  std::map<Place, std::map<uint64_t, std::string>> events_;  // everything that anybody saw
  std::vector<std::pair<Place, uint64_t>> acknowledged_;
  std::vector<Stream> streams_;
  std::vector<Gap> gaps_;
};

}  // namespace uccp::sim
