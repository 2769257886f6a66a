// Status and Result<T>: the one error channel of the platform.
//
// The code table is closed: a new code is added only if some caller would act on it. Every code maps totally to a gRPC
// code, an HTTP status and a CLI exit code. What distinguishes errors of one code is the reason, a stable
// UPPER_SNAKE_CASE name that clients may compare. The message is for people: what was tried, on what, what was seen,
// and what to do about it.
#pragma once

#include <cstdint>
#include <expected>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace uccp {

enum class Code : uint8_t {
  kOk = 0,
  kInvalid,             // the request can never succeed as it is
  kNotFound,            // the named resource does not exist
  kAlreadyExists,       // the resource to be created exists
  kConflict,            // lost against a concurrent change: read again, then retry
  kFailedPrecondition,  // the system is not in the state that the request needs
  kPermission,          // the principal may not do this
  kUnauthenticated,     // no valid credentials
  kExhausted,           // a limit or quota is reached: retry later
  kNotLeader,           // another node has to serve this; the detail may name it
  kUnavailable,         // not possible just now, nothing was done: retry
  kDeadline,            // the deadline passed before the work was started
  kCancelled,           // the caller cancelled
  kOutcomeUnknown,      // the change may or may not have happened: ask, or retry with the same request id
  kCorruption,          // stored data is damaged
  kUnimplemented,       // the method is part of the contract and not built
  kInternal,            // a defect of ours
};
inline constexpr int kCodeCount = 17;

struct CodeInfo {
  Code code;
  std::string_view name;  // lower_snake_case, as in metrics and JSON
  int grpc;               // google.rpc.Code
  int http;               // HTTP status
  int exit;               // exit code of uccp-cli
  bool retryable;         // the same request may succeed later
};

// The row of the code table for `code`.
const CodeInfo& code_info(Code code);
// The code with this google.rpc.Code; several of ours share one, the first is taken. Unknown numbers are kInternal.
Code code_from_grpc(int grpc);

// One wrong field of a request.
struct FieldViolation {
  std::string field;        // path in the request, lowerCamelCase: "task.resources.cpu"
  std::string description;  // what is wrong with it
  std::string example;      // a value that would be accepted, or empty
};

// What an error may say beyond code, reason and message.
struct StatusDetail {
  std::vector<FieldViolation> fields;
  uint32_t retry_after_ms = 0;  // 0: not said
  std::string resource_type;    // "task", "service", ...
  std::string resource_name;
  std::string help;         // page below docs/, for example "tasks.md#quota"
  std::string leader_hint;  // node to ask instead, with kNotLeader
};

class [[nodiscard]] Status {
 public:
  // The OK status.
  Status() = default;
  // Requires code != kOk. `reason` must be a literal or otherwise outlive the status.
  Status(Code code, std::string_view reason, std::string message);

  Status(const Status&) = default;
  Status(Status&&) noexcept = default;
  Status& operator=(const Status&) = default;
  // `s = std::move(s).with_field(...)` assigns a status to itself, which the default would empty.
  Status& operator=(Status&& other) noexcept {
    if (this != &other) {
      code_ = other.code_;
      reason_ = std::move(other.reason_);
      message_ = std::move(other.message_);
      detail_ = std::move(other.detail_);
    }
    return *this;
  }

  static Status ok() { return {}; }

  bool is_ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  std::string_view reason() const { return reason_; }
  const std::string& message() const { return message_; }
  const StatusDetail& detail() const;

  // Each changes the status and returns it, so that they can be chained on a temporary.
  Status&& with_field(std::string field, std::string description, std::string example = {}) &&;
  Status&& with_retry_after_ms(uint32_t ms) &&;
  Status&& with_resource(std::string type, std::string name) &&;
  Status&& with_help(std::string page) &&;
  Status&& with_leader_hint(std::string node) &&;

  // "not_found SERVICE_NOT_FOUND: ..." for logs and tests.
  std::string to_string() const;

 private:
  StatusDetail& mutable_detail();

  Code code_ = Code::kOk;
  std::string reason_;
  std::string message_;
  std::shared_ptr<StatusDetail> detail_;
};

template <typename T>
using Result = std::expected<T, Status>;

// Shorthand for `return fail(Code::kNotFound, "SERVICE_NOT_FOUND", ...)` in functions that return Result<T>.
inline std::unexpected<Status> fail(Code code, std::string_view reason, std::string message) {
  return std::unexpected(Status(code, reason, std::move(message)));
}
inline std::unexpected<Status> fail(Status status) { return std::unexpected(std::move(status)); }

namespace internal {
inline Status status_of(Status status) { return status; }
template <typename T>
Status status_of(Result<T>&& result) {
  return result ? Status() : std::move(result.error());
}
// Lets UCCP_RETURN_IF_ERROR serve functions that return Status and functions that return Result<T>.
struct ErrorReturn {
  Status status;
  operator Status() && { return std::move(status); }
  template <typename T>
  operator Result<T>() && {
    return std::unexpected(std::move(status));
  }
};
}  // namespace internal

}  // namespace uccp

#define UCCP_CONCAT_(a, b) a##b
#define UCCP_CONCAT(a, b) UCCP_CONCAT_(a, b)

// UCCP_RETURN_IF_ERROR(expr): expr is a Status or Result<T>; returns its error from the enclosing function.
#define UCCP_RETURN_IF_ERROR(expr)                                                            \
  do {                                                                                        \
    if (::uccp::Status uccp_status = ::uccp::internal::status_of(expr); !uccp_status.is_ok()) \
      return ::uccp::internal::ErrorReturn{std::move(uccp_status)};                           \
  } while (false)

// UCCP_TRY(auto value, expr): expr is a Result<T>; binds its value or returns its error.
#define UCCP_TRY(declaration, expr) UCCP_TRY_(UCCP_CONCAT(uccp_result_, __LINE__), declaration, expr)
#define UCCP_TRY_(result, declaration, expr)                                    \
  auto result = (expr);                                                         \
  if (!result) return ::uccp::internal::ErrorReturn{std::move(result.error())}; \
  declaration = std::move(*result)
