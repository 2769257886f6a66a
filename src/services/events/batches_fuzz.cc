// Batches of events, as the log and other nodes have them, and cursors, as clients send them.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "services/events/batches.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp;
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  (void)events::decode_entry(Entry{Term(1), LogIndex(2), EntryKind::kCommand, bytes});
  if (const auto batch = events::decode_notice(GroupId(16), {}, bytes)) {
    std::string out;
    // Of one without events they are to be read from the log first.
    for (size_t i = 0; !(*batch)->bare() && i < (*batch)->places.size(); ++i)
      events::DeliveredEvents(**batch, "topic").append(out, 1, i);
  }
  (void)events::end_of(bytes, 1, 1);
  if (const auto cursor = events::decode_cursor(bytes)) {
    const auto again = events::decode_cursor(events::encode_cursor(*cursor));
    UCCP_CHECK(again && *again == *cursor, "a cursor that was read can be written");
  }
  return 0;
}
