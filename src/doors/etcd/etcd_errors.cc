#include "doors/etcd/etcd_errors.h"

#include <array>
#include <string_view>

namespace uccp::doors {
namespace {

enum Grpc : int {
  kUnknown = 2,
  kInvalidArgument = 3,
  kNotFound = 5,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kOutOfRange = 11,
  kUnavailable = 14,
  kUnauthenticated = 16,
};

struct Known {
  std::string_view reason;
  int grpc_code;
  std::string_view text;  // behind "etcdserver: ", unless it names another part
};

// By reason; the texts are those that etcd's client library has errors for.
constexpr auto kKnown = std::to_array<Known>({
    {"KEY_MISSING", kInvalidArgument, "key is not provided"},
    {"KEY_NOT_FOUND", kInvalidArgument, "key not found"},
    {"VALUE_PROVIDED", kInvalidArgument, "value is provided"},
    {"LEASE_PROVIDED", kInvalidArgument, "lease is provided"},
    {"TXN_TOO_LARGE", kInvalidArgument, "too many operations in txn request"},
    {"DUPLICATE_KEY", kInvalidArgument, "duplicate key given in txn request"},
    {"SORT_INVALID", kInvalidArgument, "invalid sort option"},
    {"REVISION_COMPACTED", kOutOfRange, "mvcc: required revision has been compacted"},
    {"REVISION_FUTURE", kOutOfRange, "mvcc: required revision is a future revision"},
    {"KV_BYTES_EXHAUSTED", kResourceExhausted, "mvcc: database space exceeded"},
    {"NO_SPACE", kResourceExhausted, "mvcc: database space exceeded"},
    {"KV_REQUEST_TOO_LARGE", kInvalidArgument, "request is too large"},
    {"REQUEST_TOO_LARGE", kInvalidArgument, "request is too large"},
    {"LEASE_NOT_FOUND", kNotFound, "requested lease not found"},
    {"LEASE_EXISTS", kFailedPrecondition, "lease already exists"},
    {"LEASE_TTL_TOO_LARGE", kOutOfRange, "too large lease TTL"},
    {"MEMBER_NOT_FOUND", kNotFound, "member not found"},
    {"BAD_TRANSFEREE", kFailedPrecondition, "bad leader transferee"},
    {"LEADER_MISSING", kUnknown, "\"leader\" field must be provided"},
    {"NOT_LEADER_OF_ELECTION", kUnknown, "election: not leader"},
    {"NO_LEADER", kUnknown, "election: no leader"},
    {"READ_NOT_CONFIRMED", kUnavailable, "request timed out"},
});

}  // namespace

EtcdError etcd_error(const Status& status) {
  if (status.is_ok()) return {};
  constexpr std::string_view kPrefix = "etcdserver: ";
  for (const Known& known : kKnown) {
    if (known.reason != status.reason()) continue;
    return {known.grpc_code, std::string(known.grpc_code == kUnknown ? "" : kPrefix) + std::string(known.text)};
  }
  const auto with = [&](int code, std::string_view text) {
    return EtcdError{code, std::string(kPrefix) + std::string(text)};
  };
  switch (status.code()) {
    case Code::kPermission: return with(kPermissionDenied, "permission denied");
    case Code::kUnauthenticated: return with(kUnauthenticated, "invalid auth token");
    case Code::kNotLeader: return with(kUnavailable, "no leader");
    // Neither side knows whether a change was made: etcd says so of a proposal that it lost track of.
    case Code::kOutcomeUnknown: return with(kUnavailable, "request timed out");
    case Code::kExhausted: return with(kResourceExhausted, "too many requests");
    default: return {code_info(status.code()).grpc, std::string(kPrefix) + status.message()};
  }
}

}  // namespace uccp::doors
