#include "services/kv/kv_past.h"

#include <algorithm>

#include "base/bytes.h"
#include "call/wire.h"
#include "services/kv/kv_range.h"
#include "uccp/v1/kv.pb.h"

namespace uccp::kv {

void append_key_event(std::string& out, ChangeKind kind, std::string_view key, uint64_t revision, std::string_view row,
                      std::string_view before) {
  const size_t mark = call::begin_bytes(out, v1::WatchResponse::kEventsFieldNumber);
  call::put_uint(out, v1::KeyEvent::kKindFieldNumber, static_cast<uint64_t>(kind));
  if (kind == ChangeKind::kPut) {
    append_pair(out, v1::KeyEvent::kPairFieldNumber, key, *decode_version(row));
  } else {
    const size_t pair = call::begin_bytes(out, v1::KeyEvent::kPairFieldNumber);
    call::put_bytes(out, v1::KeyValuePair::kKeyFieldNumber, key);
    call::put_uint(out, v1::KeyValuePair::kModRevisionFieldNumber, revision);
    call::end_bytes(out, pair);
  }
  if (!before.empty()) append_pair(out, v1::KeyEvent::kPrevKvFieldNumber, key, *decode_version(before));
  call::end_bytes(out, mark);
}

PastReader::Chunk PastReader::read(const machine::KeyReader& state, const machine::Scope& scope,
                                   const EventFilter& filter, LogPlace place, size_t rows_max, size_t bytes_max) {
  const Head head = read_head(state, scope);
  Chunk chunk{.events = {}, .next = place, .revision = head.revision};
  // What is older than the compaction may be partly gone.
  if (place.revision < head.compacted) {
    chunk.compacted = head.compacted;
    return chunk;
  }
  chunk.whole = true;
  size_t rows = 0;
  uint64_t last_taken = 0;
  const size_t prefix = machine::table_key::scope_prefix(kRevisionTable, scope).size();
  const std::string end = machine::prefix_end(machine::table_key::scope_prefix(kRevisionTable, scope));
  state.scan(revision_key(scope, place.revision, place.number), end, [&](std::string_view full, std::string_view row) {
    ByteReader in(full.substr(prefix));
    const uint64_t revision = in.u64();
    const uint32_t number = in.u32();
    const bool large = chunk.events.size() >= bytes_max;
    const auto cut = [&] {
      chunk.next = {revision, number};
      return chunk.whole = false;
    };
    if ((rows++ >= rows_max || large) && number == 0) return cut();
    const Revision logged = decode_revision(row);
    if (!filter.wants(logged.kind, logged.key)) return true;
    // In the middle of a revision only if something of it was taken and something follows.
    if (large && last_taken == revision) return cut();
    last_taken = revision;
    std::string now, before;
    if (logged.kind == ChangeKind::kPut) {
      const auto newest = state.get(key_key(scope, logged.key));
      const bool is_newest = newest && decode_version(*newest)->mod == revision;
      now = is_newest ? *newest : state.get(history_key(scope, logged.key, revision)).value_or("");
      UCCP_CHECK(!now.empty(), "a version that is not compacted is there");
    }
    if (filter.prev_kv && logged.previous != 0) {
      before = state.get(history_key(scope, logged.key, logged.previous)).value_or("");
    }
    append_key_event(chunk.events, logged.kind, logged.key, revision, now, before);
    ++chunk.count;
    return true;
  });
  if (chunk.whole) chunk.next = {std::max(head.revision + 1, place.revision), 0};
  return chunk;
}

}  // namespace uccp::kv
