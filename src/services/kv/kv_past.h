// Reads what happened from the log of revisions, for one range of keys, in chunks. Pure; usable on any thread.
#pragma once

#include <cstdint>
#include <string>

#include "machine/key_reader.h"
#include "services/kv/kv_rows.h"

namespace uccp::kv {

// What a watch wants to see.
struct EventFilter {
  KeyRange range;
  bool no_put = false;
  bool no_delete = false;
  bool prev_kv = false;

  bool wants(ChangeKind kind, std::string_view key) const {
    return !(kind == ChangeKind::kPut ? no_put : no_delete) && range.contains(key);
  }
};

// Appends a uccp.v1.KeyEvent as the field `events` of a WatchResponse. `row`, `before`: empty if there is none.
void append_key_event(std::string& out, ChangeKind kind, std::string_view key, uint64_t revision, std::string_view row,
                      std::string_view before);

// A place in the log of revisions: everything before it was read.
struct LogPlace {
  uint64_t revision = 0;
  uint32_t number = 0;

  auto operator<=>(const LogPlace&) const = default;
};

class PastReader {
 public:
  struct Chunk {
    std::string events;  // encoded
    size_t count = 0;
    LogPlace next;           // where to go on
    bool whole = false;      // the state has nothing behind
    uint64_t compacted = 0;  // not 0: the place is compacted, and this is the least that is not
    uint64_t revision = 0;   // of the state
  };
  // Looks at about `rows_max` changes and `bytes_max` bytes of events from `place` on.
  static Chunk read(const machine::KeyReader& state, const machine::Scope& scope, const EventFilter& filter,
                    LogPlace place, size_t rows_max, size_t bytes_max);
};

}  // namespace uccp::kv
