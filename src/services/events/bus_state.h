// The replicated state of a group bus-*: partitions, the index of what is in the group's log, producers, ids that count
// once. Pure: runs on the loop, inside apply. An event itself is in the log entry of the bus.append that published it.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "machine/domain.h"

namespace uccp::events {

inline constexpr std::string_view kBusDomain = "bus";
// Changes (not kept): BusNotice, for each batch that was stored or is of an ephemeral topic. The key is the
// partition's.
inline constexpr std::string_view kBusTopic = "bus";
// Kinds of them: a batch; a transaction that held deliveries of the partition has ended, which has no content.
inline constexpr uint8_t kBatchChange = 0;
inline constexpr uint8_t kHeldChange = 1;

class BusState final : public machine::Domain {
 public:
  std::string_view name() const override { return kBusDomain; }
  // As events_state.proto says.
  std::map<std::string, machine::ApplyFunction, std::less<>> commands() override;
};

}  // namespace uccp::events
