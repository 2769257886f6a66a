// How a server stream is written over HTTP: as server-sent events, as lines of JSON, or as the bytes themselves.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "call/method.h"

namespace uccp::doors {

enum class StreamForm : uint8_t { kSse, kNdjson, kBytes };

// By the Accept header. SSE if asked for, and for `sse_default`, unless NDJSON is. A method whose items carry content
// (a field `bytes data` of their own) is answered as plain bytes, unless a form of JSON is asked for.
StreamForm choose_form(const call::Method& method, std::string_view accept, bool sse_default);
std::string_view content_type_of(StreamForm form);

// What goes before the first item.
std::string stream_begin(StreamForm form);
// One item. SSE: `id` is its cursor; the item that says why the stream ended is the event "end".
Result<std::string> stream_item(StreamForm form, const call::Method& method, std::string_view message);
// An error after the stream has begun; empty for bytes, where only a broken connection tells.
std::string stream_error(StreamForm form, const Status& status, std::string_view call_id);
// A comment that keeps proxies from closing a silent stream; empty if the form has none.
std::string stream_heartbeat(StreamForm form);
// False if the item says that the stream ended before all was sent (a byte stream must not look complete then).
bool is_complete_end(const call::Method& method, std::string_view message);

}  // namespace uccp::doors
