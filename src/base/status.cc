#include "base/status.h"

#include <array>

#include "base/check.h"

namespace uccp {
namespace {

constexpr std::array<CodeInfo, kCodeCount> kCodes = {{
    {Code::kOk, "ok", 0, 200, 0, false},
    {Code::kInvalid, "invalid", 3, 400, 2, false},
    {Code::kNotFound, "not_found", 5, 404, 3, false},
    {Code::kAlreadyExists, "already_exists", 6, 409, 5, false},
    {Code::kConflict, "conflict", 10, 409, 5, false},
    {Code::kFailedPrecondition, "failed_precondition", 9, 412, 5, false},
    {Code::kPermission, "permission", 7, 403, 4, false},
    {Code::kUnauthenticated, "unauthenticated", 16, 401, 4, false},
    {Code::kExhausted, "exhausted", 8, 429, 7, true},
    {Code::kNotLeader, "not_leader", 14, 503, 7, true},
    {Code::kUnavailable, "unavailable", 14, 503, 7, true},
    {Code::kDeadline, "deadline", 4, 504, 6, true},
    {Code::kCancelled, "cancelled", 1, 499, 130, false},
    {Code::kOutcomeUnknown, "outcome_unknown", 2, 504, 6, false},
    {Code::kCorruption, "corruption", 15, 500, 1, false},
    {Code::kUnimplemented, "unimplemented", 12, 501, 1, false},
    {Code::kInternal, "internal", 13, 500, 1, false},
}};

}  // namespace

const CodeInfo& code_info(Code code) {
  const CodeInfo& info = kCodes[static_cast<size_t>(code)];
  UCCP_CHECK(info.code == code, "the code table is in the order of the enum");
  return info;
}

Code code_from_grpc(int grpc) {
  if (grpc == 14) return Code::kUnavailable;
  for (const CodeInfo& info : kCodes) {
    if (info.grpc == grpc) return info.code;
  }
  return grpc == 11 ? Code::kInvalid : Code::kInternal;
}

Status::Status(Code code, std::string_view reason, std::string message)
    : code_(code), reason_(reason), message_(std::move(message)) {
  UCCP_CHECK(code != Code::kOk, "an OK status carries no reason");
}

const StatusDetail& Status::detail() const {
  static const StatusDetail empty;
  return detail_ ? *detail_ : empty;
}

StatusDetail& Status::mutable_detail() {
  // Copies share their detail until one of them changes it.
  if (!detail_) {
    detail_ = std::make_shared<StatusDetail>();
  } else if (detail_.use_count() > 1) {
    detail_ = std::make_shared<StatusDetail>(*detail_);
  }
  return *detail_;
}

Status&& Status::with_field(std::string field, std::string description, std::string example) && {
  mutable_detail().fields.push_back({std::move(field), std::move(description), std::move(example)});
  return std::move(*this);
}

Status&& Status::with_retry_after_ms(uint32_t ms) && {
  mutable_detail().retry_after_ms = ms;
  return std::move(*this);
}

Status&& Status::with_resource(std::string type, std::string name) && {
  mutable_detail().resource_type = std::move(type);
  mutable_detail().resource_name = std::move(name);
  return std::move(*this);
}

Status&& Status::with_help(std::string page) && {
  mutable_detail().help = std::move(page);
  return std::move(*this);
}

Status&& Status::with_leader_hint(std::string node) && {
  mutable_detail().leader_hint = std::move(node);
  return std::move(*this);
}

std::string Status::to_string() const {
  std::string text(code_info(code_).name);
  if (!reason_.empty()) text.append(" ").append(reason_);
  if (!message_.empty()) text.append(": ").append(message_);
  return text;
}

}  // namespace uccp
