// What a revision of a key-value store tells its watchers: the payload of a change of the topic "kv". Its key is the
// revision, u64. The payload is a list of: u8 kind, bytes key, bytes row after, bytes row before (each empty if there
// is none).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "services/kv/kv_rows.h"

namespace uccp::kv {

inline constexpr std::string_view kTopic = "kv";

// Views into the payload.
struct Event {
  ChangeKind kind = ChangeKind::kPut;
  std::string_view key;
  std::string_view row;
  std::string_view before;
};

inline void append_event(std::string& payload, ChangeKind kind, std::string_view key, std::string_view row,
                         std::string_view before) {
  payload += ByteWriter().u8(static_cast<uint8_t>(kind)).bytes(key).bytes(row).bytes(before).data();
}

inline std::vector<Event> decode_events(std::string_view payload) {
  std::vector<Event> events;
  for (ByteReader in(payload); !in.at_end() && in.ok();) {
    Event event;
    event.kind = static_cast<ChangeKind>(in.u8());
    event.key = in.bytes();
    event.row = in.bytes();
    event.before = in.bytes();
    events.push_back(event);
  }
  return events;
}

}  // namespace uccp::kv
