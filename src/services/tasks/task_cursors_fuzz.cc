// Cursors of task logs and of results, as clients send them: what is taken is the same when it is written and read
// again.
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "services/tasks/result_stream.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto cursor = tasks::decode_cursor(text)) {
    UCCP_CHECK(cursor->attempt >= 1, "attempts are counted from 1");
    UCCP_CHECK(tasks::decode_cursor(tasks::encode_cursor(*cursor)).value() == *cursor, "a cursor can be written");
  } else {
    UCCP_CHECK(cursor.error().reason() == "CURSOR_INVALID", "every refusal has one reason");
  }
  if (const auto cursor = tasks::decode_result_cursor(text)) {
    UCCP_CHECK(cursor->attempt >= 1, "attempts are counted from 1");
    UCCP_CHECK(tasks::decode_result_cursor(tasks::encode_cursor(*cursor)).value() == *cursor,
               "a cursor can be written");
  } else {
    UCCP_CHECK(cursor.error().reason() == "CURSOR_INVALID", "every refusal has one reason");
  }
  return 0;
}
