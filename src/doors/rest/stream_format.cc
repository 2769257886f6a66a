#include "doors/rest/stream_format.h"

#include <algorithm>

#include "call/json_codec.h"
#include "call/wire.h"
#include "doors/rest/problem.h"

namespace uccp::doors {
namespace {

const call::FieldPlan* content_field(const call::Method& method) {
  const call::FieldPlan* field = method.response->by_name("data");
  const bool is_content = field != nullptr && field->kind == call::Kind::kBytes &&
                          field->shape == call::Shape::kSingular && field->oneof < 0;
  return is_content ? field : nullptr;
}

bool accepts(std::string_view accept, std::string_view type) { return accept.find(type) != std::string_view::npos; }

}  // namespace

StreamForm choose_form(const call::Method& method, std::string_view accept, bool sse_default) {
  if (accepts(accept, "text/event-stream")) return StreamForm::kSse;
  if (accepts(accept, "application/x-ndjson") || accepts(accept, "application/jsonl") ||
      accepts(accept, "application/json")) {
    return StreamForm::kNdjson;
  }
  if (sse_default) return StreamForm::kSse;
  return content_field(method) != nullptr ? StreamForm::kBytes : StreamForm::kNdjson;
}

std::string_view content_type_of(StreamForm form) {
  switch (form) {
    case StreamForm::kSse: return "text/event-stream; charset=utf-8";
    case StreamForm::kNdjson: return "application/x-ndjson";
    case StreamForm::kBytes: break;
  }
  return "application/octet-stream";
}

std::string stream_begin(StreamForm form) { return form == StreamForm::kSse ? "retry: 2000\n\n" : std::string(); }

Result<std::string> stream_item(StreamForm form, const call::Method& method, std::string_view message) {
  if (form == StreamForm::kBytes) {
    std::string data;
    const uint32_t number = content_field(method)->number;
    call::WireReader reader(message);
    for (call::WireField field; reader.next(field);) {
      if (field.number == number) data = field.bytes;
    }
    return data;
  }
  UCCP_TRY(std::string json, call::wire_to_json(*method.response, message, {.emit = call::Emit::kFacts}));
  if (form == StreamForm::kNdjson) return json + "\n";
  std::string event;
  event.reserve(json.size() + 96);
  if (!method.cursor.empty()) {
    const auto cursor = call::get_text(method.cursor, message);
    // A line break would end the field; cursors have none.
    if (cursor && !cursor->empty() &&
        std::ranges::none_of(*cursor, [](char c) { return c == '\n' || c == '\r' || c == 0; })) {
      event.append("id: ").append(*cursor).append("\n");
    }
  }
  if (!method.end.empty() && call::has_field(method.end, message)) event.append("event: end\n");
  return event.append("data: ").append(json).append("\n\n");
}

std::string stream_error(StreamForm form, const Status& status, std::string_view call_id) {
  const std::string problem = problem_json(status, call_id);
  switch (form) {
    case StreamForm::kSse: return "event: error\ndata: " + problem + "\n\n";
    case StreamForm::kNdjson: return "{\"error\":" + problem + "}\n";
    case StreamForm::kBytes: break;
  }
  return {};
}

std::string stream_heartbeat(StreamForm form) { return form == StreamForm::kSse ? ":\n\n" : std::string(); }

bool is_complete_end(const call::Method& method, std::string_view message) {
  if (method.end.empty()) return true;
  const auto end = call::get_message(method.end, message);
  if (!end) return true;
  // StreamEndReason: COMPLETED, CAUGHT_UP and LIMIT.
  call::WireReader reader(*end);
  uint64_t reason = 0;
  for (call::WireField field; reader.next(field);) {
    if (field.number == 1) reason = field.value;
  }
  return reason >= 1 && reason <= 3;
}

}  // namespace uccp::doors
