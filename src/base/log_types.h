// The vocabulary that consensus and storage share: entries and the durable state of a group's log.
#pragma once

#include <cstdint>
#include <string>

#include "base/ids.h"

namespace uccp {

enum class EntryKind : uint8_t {
  kCommand = 1,        // data is a command envelope
  kNoop = 2,           // appended by a new leader
  kConfiguration = 3,  // data is an encoded membership; takes effect when appended
};

struct Entry {
  Term term;
  LogIndex index;
  EntryKind kind = EntryKind::kCommand;
  std::string data;

  bool operator==(const Entry&) const = default;
};

// What a voter must not forget.
struct HardState {
  Term term;
  NodeId vote;      // 0: none given in this term
  LogIndex commit;  // a hint: may lag behind what was acknowledged

  bool operator==(const HardState&) const = default;
};

// Names one position of the log.
struct LogPosition {
  Term term;
  LogIndex index;

  bool operator==(const LogPosition&) const = default;
};

}  // namespace uccp
