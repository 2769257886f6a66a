#include "doors/grpc_client/errors.h"

#include <grpcpp/support/status.h>

#include <array>

#include "call/contract.h"
#include "call/error_json.h"

namespace uccp::doors {
namespace {

bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

// gRPC tells only in words that it never had a connection to send on.
bool is_never_sent(std::string_view message) {
  constexpr std::array<std::string_view, 6> kWords = {"failed to connect to all addresses",
                                                      "DNS resolution failed",
                                                      "Name resolution failed",
                                                      "empty address list",
                                                      "handshake failed",
                                                      "Failed to connect to remote host"};
  for (const std::string_view word : kWords) {
    if (contains(message, word)) return true;
  }
  return false;
}

Status connect_error(std::string_view message, std::string_view target) {
  const std::string to(target);
  const auto unavailable = [&](std::string_view reason, std::string text) {
    return Status(Code::kUnavailable, reason, std::move(text) + " [" + std::string(message) + "]");
  };
  if (contains(message, "Connection refused")) {
    return unavailable("CONNECT_REFUSED", "nothing listens on " + to + "; check the address and that the server runs");
  }
  if (contains(message, "handshake failed") || contains(message, "SSL_ERROR") || contains(message, "Peer name") ||
      contains(message, "CERTIFICATE")) {
    return unavailable("TLS_FAILED", "the TLS handshake with " + to +
                                         " failed; check that the CA certificate is the server's, that its certificate "
                                         "names this host, and that both sides speak TLS 1.3");
  }
  if (contains(message, "esolution failed") || contains(message, "empty address list")) {
    return unavailable("CONNECT_FAILED", "the host name of " + to + " cannot be resolved; check its spelling and DNS");
  }
  if (contains(message, "imed out") || contains(message, "imeout")) {
    return unavailable("CONNECT_TIMEOUT", to + " did not answer in time; check the address, the network and firewalls");
  }
  return unavailable("CONNECT_FAILED",
                     "no connection to " + to + "; check the address, the network and that the port is gRPC");
}

}  // namespace

Status from_grpc_status(const grpc::Status& status, std::string_view method, std::string_view target) {
  if (status.ok()) return Status::ok();
  const std::string& message = status.error_message();
  if (!status.error_details().empty()) {
    return call::from_rpc_status(status.error_details(), status.error_code(), message);
  }
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE && is_never_sent(message)) {
    return connect_error(message, target);
  }
  const call::Method* known = call::Contract::get().find(method);
  const bool mutating = known != nullptr && known->mutating;
  const std::string what = "the answer of " + std::string(target) + " to " + std::string(method);
  const auto unknown = [&] {
    return Status(Code::kOutcomeUnknown, "REPLY_LOST",
                  what + " was lost; the change may have been made: look, or repeat it with the same request id [" +
                      message + "]");
  };
  switch (status.error_code()) {
    case grpc::StatusCode::UNAVAILABLE:
      if (mutating) return unknown();
      return Status(Code::kUnavailable, "CONNECTION_LOST", what + " was lost; retry [" + message + "]");
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      if (mutating) return unknown();
      return Status(Code::kDeadline, "DEADLINE_EXCEEDED", what + " did not come before the deadline");
    case grpc::StatusCode::CANCELLED:
      return Status(Code::kCancelled, "CANCELLED", "the call of " + std::string(method) + " was cancelled");
    default: return call::from_rpc_status({}, status.error_code(), message);
  }
}

}  // namespace uccp::doors
