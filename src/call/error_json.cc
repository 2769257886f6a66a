#include "call/error_json.h"

#include <fmt/format.h>
#include <simdjson.h>

#include "base/json.h"
#include "call/json_codec_text.h"

namespace uccp::call {
namespace {

// "failed_precondition" -> "Failed precondition".
std::string title_of(Code code) {
  std::string title(code_info(code).name);
  for (char& c : title) c = c == '_' ? ' ' : c;
  if (!title.empty()) title[0] = static_cast<char>(title[0] - 'a' + 'A');
  return title;
}

Code code_from_http(int http) {
  switch (http) {
    case 409: return Code::kConflict;
    case 500: return Code::kInternal;
    case 502:
    case 503: return Code::kUnavailable;
    case 504: return Code::kDeadline;
    case 405: return Code::kUnimplemented;
    case 413: return Code::kInvalid;
    default: break;
  }
  for (int i = 1; i < kCodeCount; ++i) {
    const CodeInfo& info = code_info(static_cast<Code>(i));
    if (info.http == http) return info.code;
  }
  return http >= 400 && http < 500 ? Code::kInvalid : Code::kInternal;
}

std::string_view text_at(const simdjson::dom::element& object, std::string_view key) {
  std::string_view text;
  return object[key].get(text) == simdjson::SUCCESS ? text : std::string_view();
}

}  // namespace

std::string to_problem_json(const Status& status, std::string_view call_id) {
  const CodeInfo& info = code_info(status.code());
  const StatusDetail& detail = status.detail();
  JsonWriter json;
  json.begin_object();
  json.key("type").value("urn:uccp:error:" + std::string(status.reason()));
  json.key("title").value(title_of(status.code()));
  json.key("status").value(info.http);
  json.key("detail").value(status.message());
  json.key("code").value(info.name);
  json.key("reason").value(status.reason());
  if (!detail.fields.empty()) {
    json.key("fields").begin_array();
    for (const FieldViolation& field : detail.fields) {
      json.begin_object().key("field").value(field.field).key("description").value(field.description);
      if (!field.example.empty()) json.key("example").value(field.example);
      json.end_object();
    }
    json.end_array();
  }
  if (detail.retry_after_ms > 0) json.key("retryAfterMs").value(detail.retry_after_ms);
  if (!detail.resource_type.empty() || !detail.resource_name.empty()) {
    json.key("resource").begin_object().key("type").value(detail.resource_type);
    json.key("name").value(detail.resource_name).end_object();
  }
  if (!detail.help.empty()) json.key("help").value(detail.help);
  if (!detail.leader_hint.empty()) json.key("leaderHint").value(detail.leader_hint);
  if (!call_id.empty()) json.key("callId").value(call_id);
  json.end_object();
  return json.take();
}

Status from_problem_json(std::string_view json, int http_status) {
  simdjson::dom::parser parser;
  simdjson::dom::element problem;
  const auto foreign = [&] {
    const Code code = code_from_http(http_status);
    return Status(code, "HTTP_STATUS", fmt::format("HTTP status {}: {}", http_status, json.substr(0, 512)));
  };
  if (parser.parse(json.data(), json.size()).get(problem) || !problem.is_object()) return foreign();
  const std::string_view name = text_at(problem, "code");
  Code code = Code::kOk;
  for (int i = 1; i < kCodeCount; ++i) {
    if (code_info(static_cast<Code>(i)).name == name) code = static_cast<Code>(i);
  }
  if (code == Code::kOk) return foreign();
  Status status(code, text_at(problem, "reason"), std::string(text_at(problem, "detail")));
  simdjson::dom::array fields;
  if (problem["fields"].get(fields) == simdjson::SUCCESS) {
    for (const simdjson::dom::element field : fields) {
      if (!field.is_object()) continue;
      (void)std::move(status).with_field(std::string(text_at(field, "field")),
                                         std::string(text_at(field, "description")),
                                         std::string(text_at(field, "example")));
    }
  }
  uint64_t retry = 0;
  if (problem["retryAfterMs"].get(retry) == simdjson::SUCCESS && retry > 0) {
    (void)std::move(status).with_retry_after_ms(static_cast<uint32_t>(std::min<uint64_t>(retry, UINT32_MAX)));
  }
  simdjson::dom::element resource;
  if (problem["resource"].get(resource) == simdjson::SUCCESS && resource.is_object()) {
    (void)std::move(status).with_resource(std::string(text_at(resource, "type")),
                                          std::string(text_at(resource, "name")));
  }
  if (const auto help = text_at(problem, "help"); !help.empty()) (void)std::move(status).with_help(std::string(help));
  if (const auto hint = text_at(problem, "leaderHint"); !hint.empty())
    (void)std::move(status).with_leader_hint(std::string(hint));
  return status;
}

std::string to_text(const Status& status) {
  const StatusDetail& detail = status.detail();
  std::string text = "error: " + status.message() + " (" + std::string(status.reason()) + ")\n";
  for (const FieldViolation& field : detail.fields) {
    text.append("  ").append(field.field).append(": ").append(field.description);
    if (!field.example.empty()) text.append(" (for example ").append(field.example).append(")");
    text.push_back('\n');
  }
  if (detail.retry_after_ms > 0) text.append(fmt::format("  try again in {} ms\n", detail.retry_after_ms));
  if (!detail.leader_hint.empty()) text.append("  ask node ").append(detail.leader_hint).append("\n");
  if (!detail.help.empty()) text.append("  see docs/").append(detail.help).append("\n");
  return text;
}

}  // namespace uccp::call
