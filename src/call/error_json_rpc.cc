// Status as serialized google.rpc.Status and back, written field by field: google/rpc/status.proto and
// google/rpc/error_details.proto give the numbers.
#include "base/json.h"
#include "call/error_json.h"
#include "call/wire.h"

namespace uccp::call {
namespace {

constexpr std::string_view kTypePrefix = "type.googleapis.com/google.rpc.";
constexpr std::string_view kDomain = "uccp";
constexpr std::string_view kExample = " Example: ";
constexpr std::string_view kDocs = "docs/";

void add_detail(std::string& out, std::string_view type, std::string_view content) {
  const size_t mark = begin_bytes(out, 3);
  put_bytes(out, 1, std::string(kTypePrefix).append(type));
  put_bytes(out, 2, content);
  end_bytes(out, mark);
}

void add_metadata(std::string& out, std::string_view key, std::string_view value) {
  const size_t mark = begin_bytes(out, 3);
  put_bytes(out, 1, key);
  put_bytes(out, 2, value);
  end_bytes(out, mark);
}

// A message whose repeated field 1 is `item`: PreconditionFailure, Help.
std::string listed(std::string_view item) {
  std::string content;
  put_bytes(content, 1, item);
  return content;
}

// The first occurrence of a length-delimited field.
std::string_view part(std::string_view message, uint32_t number) {
  WireReader reader(message);
  WireField field;
  while (reader.next(field)) {
    if (field.number == number && field.type == WireType::kBytes) return field.bytes;
  }
  return {};
}

uint64_t number_part(std::string_view message, uint32_t number) {
  WireReader reader(message);
  WireField field;
  while (reader.next(field)) {
    if (field.number == number && field.type == WireType::kVarint) return field.value;
  }
  return 0;
}

// What the details of a google.rpc.Status say, before it becomes a Status.
struct Parsed {
  std::string_view reason, code_name, resource_type, resource_name, help, leader;
  std::vector<std::string_view> violations;
  uint64_t retry_ms = 0;

  void error_info(std::string_view content) {
    reason = part(content, 1);
    WireReader reader(content);
    WireField field;
    while (reader.next(field)) {
      if (field.number != 3 || field.type != WireType::kBytes) continue;
      if (part(field.bytes, 1) == "code") code_name = part(field.bytes, 2);
      if (part(field.bytes, 1) == "leader_hint") leader = part(field.bytes, 2);
    }
  }

  void bad_request(std::string_view content) {
    WireReader reader(content);
    WireField field;
    while (reader.next(field)) {
      if (field.number == 1 && field.type == WireType::kBytes) violations.push_back(field.bytes);
    }
  }

  void detail(std::string_view any) {
    std::string_view type = part(any, 1);
    const std::string_view content = part(any, 2);
    if (!type.starts_with(kTypePrefix)) return;
    type.remove_prefix(kTypePrefix.size());
    if (type == "ErrorInfo") error_info(content);
    if (type == "BadRequest") bad_request(content);
    if (type == "RetryInfo") {
      const std::string_view delay = part(content, 1);
      const uint64_t seconds = std::min<uint64_t>(number_part(delay, 1), 1'000'000);
      retry_ms = seconds * 1000 + std::min<uint64_t>(number_part(delay, 2), 999'999'999) / 1'000'000;
    }
    if (type == "ResourceInfo") {
      resource_type = part(content, 1);
      resource_name = part(content, 2);
    }
    if (type == "Help") help = part(part(content, 1), 2);
  }
};

}  // namespace

std::string to_rpc_status(const Status& status) {
  const CodeInfo& info = code_info(status.code());
  const StatusDetail& detail = status.detail();
  std::string out, content, item;
  put_uint(out, 1, static_cast<uint64_t>(info.grpc));
  put_bytes(out, 2, status.message());

  put_bytes(content, 1, status.reason());
  put_bytes(content, 2, kDomain);
  add_metadata(content, "code", info.name);
  if (!detail.leader_hint.empty()) add_metadata(content, "leader_hint", detail.leader_hint);
  add_detail(out, "ErrorInfo", content);

  if (!detail.fields.empty()) {
    content.clear();
    for (const FieldViolation& field : detail.fields) {
      item.clear();
      put_bytes(item, 1, field.field);
      std::string description = field.description;
      if (!field.example.empty()) description.append(kExample).append(field.example);
      put_bytes(item, 2, description);
      put_bytes(content, 1, item);
    }
    add_detail(out, "BadRequest", content);
  }
  if (detail.retry_after_ms > 0) {
    item.clear();
    if (detail.retry_after_ms >= 1000) put_uint(item, 1, detail.retry_after_ms / 1000);
    if (detail.retry_after_ms % 1000 != 0) put_uint(item, 2, detail.retry_after_ms % 1000 * 1'000'000ull);
    add_detail(out, "RetryInfo", listed(item));
  }
  if (status.code() == Code::kFailedPrecondition) {
    item.clear();
    put_bytes(item, 1, status.reason());
    put_bytes(item, 2, detail.resource_type + (detail.resource_type.empty() ? "" : "/") + detail.resource_name);
    put_bytes(item, 3, status.message());
    add_detail(out, "PreconditionFailure", listed(item));
  }
  if (!detail.resource_type.empty() || !detail.resource_name.empty()) {
    content.clear();
    put_bytes(content, 1, detail.resource_type);
    put_bytes(content, 2, detail.resource_name);
    add_detail(out, "ResourceInfo", content);
  }
  if (!detail.help.empty()) {
    item.clear();
    put_bytes(item, 1, "Documentation");
    put_bytes(item, 2, std::string(kDocs) + detail.help);
    add_detail(out, "Help", listed(item));
  }
  return out;
}

Status from_rpc_status(std::string_view details, int grpc_code, std::string_view message) {
  if (grpc_code == 0) return Status::ok();
  Parsed parsed;
  WireReader reader(details);
  WireField field;
  while (reader.next(field)) {
    if (field.number == 3 && field.type == WireType::kBytes) parsed.detail(field.bytes);
  }
  Code code = code_from_grpc(grpc_code);
  for (int i = 1; i < kCodeCount; ++i) {
    const CodeInfo& info = code_info(static_cast<Code>(i));
    // Several codes of ours share one of gRPC; the name tells them apart but never contradicts it.
    if (info.name == parsed.code_name && info.grpc == grpc_code) code = info.code;
  }
  Status status(code, parsed.reason.empty() ? "GRPC_STATUS" : parsed.reason, std::string(message));
  for (const std::string_view violation : parsed.violations) {
    std::string_view description = part(violation, 2), example;
    if (const size_t at = description.rfind(kExample); at != std::string_view::npos) {
      example = description.substr(at + kExample.size());
      description = description.substr(0, at);
    }
    (void)std::move(status).with_field(std::string(part(violation, 1)), std::string(description), std::string(example));
  }
  if (parsed.retry_ms > 0) (void)std::move(status).with_retry_after_ms(static_cast<uint32_t>(parsed.retry_ms));
  if (!parsed.resource_type.empty() || !parsed.resource_name.empty()) {
    (void)std::move(status).with_resource(std::string(parsed.resource_type), std::string(parsed.resource_name));
  }
  if (parsed.help.starts_with(kDocs)) parsed.help.remove_prefix(kDocs.size());
  if (!parsed.help.empty()) (void)std::move(status).with_help(std::string(parsed.help));
  if (!parsed.leader.empty()) (void)std::move(status).with_leader_hint(std::string(parsed.leader));
  return status;
}

}  // namespace uccp::call
