// A bare gRPC server: the generic callback API with nothing behind it, as the yardstick for what the pipeline costs.
//
// `uccp-bench echo-server PKI_DIRECTORY REPLY_BYTES PORT_FILE`: mutual TLS with the same certificates and the same TLS
// version as the server; answers each unary call, whatever its method, with REPLY_BYTES bytes.
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/security/server_credentials.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "bench/process.h"
#include "doors/grpc_client/byte_buffer.h"
#include "doors/grpc_client/process.h"

namespace uccp::bench {
namespace {

class EchoCall final : public grpc::ServerGenericBidiReactor {
 public:
  explicit EchoCall(const std::string& reply) : reply_(doors::to_byte_buffer(reply)) { StartRead(&request_); }

 private:
  void OnReadDone(bool ok) override {
    if (!ok) return Finish(grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "no message"));
    StartWriteAndFinish(&reply_, {}, grpc::Status::OK);
  }
  void OnDone() override { delete this; }

  grpc::ByteBuffer request_, reply_;
};

class EchoService final : public grpc::CallbackGenericService {
 public:
  explicit EchoService(size_t reply_bytes) : reply_(reply_bytes, 'x') {}
  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext*) override {
    return new EchoCall(reply_);
  }

 private:
  const std::string reply_;
};

}  // namespace

int echo_server_main(const std::vector<std::string>& arguments) {
  if (arguments.size() != 3) return 2;
  doors::prepare_grpc();
  const std::string& pki = arguments[0];
  const auto ca = read_text(pki + "/ca.crt"), certificate = read_text(pki + "/server.crt"),
             key = read_text(pki + "/server.key");
  if (!ca || !certificate || !key) return 2;
  grpc::SslServerCredentialsOptions tls(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  tls.pem_root_certs = *ca;
  tls.pem_key_cert_pairs.push_back({*key, *certificate});
  EchoService service(std::stoul(arguments[1]));
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::SslServerCredentials(tls), &port);
  builder.RegisterCallbackGenericService(&service);
  const auto server = builder.BuildAndStart();
  if (server == nullptr) return 1;
  const std::string unfinished = arguments[2] + ".tmp";
  std::ofstream(unfinished) << port;
  std::filesystem::rename(unfinished, arguments[2]);
  server->Wait();
  return 0;
}

}  // namespace uccp::bench
