// What has to be set once in a process before its first use of gRPC. The only place that does it.
//
// gRPC 1.51 has no option for TLS 1.3 only. It does take the list of TLS 1.2 cipher suites from the environment, once:
// with suites that need an RSA certificate, and servers with EC certificates (all that our PKI issues), a handshake of
// TLS 1.2 finds no common suite and fails, while TLS 1.3 has suites of its own.
#pragma once

#include <string_view>

#include "base/status.h"

namespace uccp::doors {

// Sets the suites and sends gRPC's own log lines to ours. Called by GrpcChannel; a program calls it first
// thing in main(), because setenv() is not safe beside threads that read the environment. Idempotent.
void prepare_grpc();

// Keeps gRPC's callback threads for the life of the process. Called by GrpcChannel, not by prepare_grpc(), as it starts
// them. Without it the last channel to go takes them along: it joins them, and crashes if that happens on one of them,
// as when a stream outlives its channel and ends in its own callback. Idempotent.
void hold_grpc_threads();

// OK if the PEM key belongs to the PEM certificate. Errors: invalid PEM_INVALID, failed_precondition KEY_MISMATCH.
Status check_key_pair(std::string_view certificate_pem, std::string_view key_pem);

}  // namespace uccp::doors
