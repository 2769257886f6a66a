#include "doors/grpc_client/process.h"

#include <grpc/support/log.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <cstdlib>
#include <memory>
#include <mutex>

#include "base/log.h"
#include "base/openssl_owners.h"

namespace uccp::doors {
namespace {

// Failed handshakes of strangers are not errors of ours: gRPC logs them as such, we keep them for debugging.
void forward_log(gpr_log_func_args* args) {
  const auto level = args->severity == GPR_LOG_SEVERITY_ERROR ? log::Level::kInfo : log::Level::kDebug;
  if (!log::enabled(level)) return;
  log::write({.level = level, .message = "grpc", .fields = {{"text", args->message}, {"file", args->file}}});
}

Status no_certificate() {
  return Status(Code::kInvalid, "PEM_INVALID", "the certificate is not PEM; it must begin with BEGIN CERTIFICATE");
}

}  // namespace

void prepare_grpc() {
  static std::once_flag once;
  std::call_once(once, [] {
    // Suites for RSA certificates only; see the head of the header.
    setenv("GRPC_SSL_CIPHER_SUITES", "ECDHE-RSA-AES128-GCM-SHA256", 1);
    gpr_set_log_function(forward_log);
  });
}

void hold_grpc_threads() {
  // A call that is never started: making it counts as a use of the threads, and it is never given back.
  struct Holder final : grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
    Holder() { stub.PrepareBidiStreamingCall(&context, "/uccp/hold", {}, this); }
    grpc::GenericStub stub{grpc::CreateChannel("unix:/nonexistent", grpc::InsecureChannelCredentials())};
    grpc::ClientContext context;
  };
  [[maybe_unused]] static const Holder* const kHolder = new Holder();
}

Status check_key_pair(std::string_view certificate_pem, std::string_view key_pem) {
  const openssl::Certificate certificate = openssl::first_certificate_of(certificate_pem);
  if (certificate == nullptr) return no_certificate();
  const openssl::Key key = openssl::private_key_of(key_pem);
  if (key == nullptr) return Status(Code::kInvalid, "PEM_INVALID", "the private key is not an unencrypted PEM key");
  if (X509_check_private_key(certificate.get(), key.get()) == 1) return Status::ok();
  return Status(Code::kFailedPrecondition, "KEY_MISMATCH", "the private key does not belong to the certificate");
}

}  // namespace uccp::doors
