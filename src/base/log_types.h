// The vocabulary that consensus and storage share: entries and the durable state of a group's log.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/ids.h"

namespace uccp {

enum class EntryKind : uint8_t {
  kCommand = 1,        // data is a command envelope
  kNoop = 2,           // appended by a new leader
  kConfiguration = 3,  // data is an encoded membership; takes effect when appended
};

// The compressed form of some data: what storage/compression.h wrote, and its Encoding.
struct PackedData {
  uint8_t encoding = 0;
  std::string bytes;
};

struct Entry {
  Term term;
  LogIndex index;
  EntryKind kind = EntryKind::kCommand;
  std::string data;
  // Of `data`, where it is smaller: made once, then written, sent and received as it is. Encoding 0, without bytes: it
  // was tried, and `data` is what is written and sent.
  std::shared_ptr<const PackedData> packed = nullptr;

  bool operator==(const Entry& other) const {
    return term == other.term && index == other.index && kind == other.kind && data == other.data;
  }
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
