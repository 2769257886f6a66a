#include "doors/grpc_client/channel.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/security/credentials.h>

#include <atomic>
#include <condition_variable>
#include <mutex>

#include "doors/grpc_client/bidi_call.h"
#include "doors/grpc_client/blocking_stream.h"
#include "doors/grpc_client/byte_buffer.h"
#include "doors/grpc_client/errors.h"
#include "doors/grpc_client/process.h"

namespace uccp::doors {
namespace {

std::string path_of(std::string_view method) {
  return method.starts_with('/') ? std::string(method) : "/" + std::string(method);
}

grpc::ChannelArguments channel_arguments(const ChannelOptions& options) {
  grpc::ChannelArguments args;
  // Connections of its own: channels with other certificates must never share one.
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  args.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  args.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  args.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, static_cast<int>(options.keepalive_ms));
  args.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, static_cast<int>(options.keepalive_ms));
  args.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, static_cast<int>(options.reconnect_ms_min));
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, static_cast<int>(options.reconnect_ms_max));
  // In spite of its name this is how long one attempt to connect may take.
  args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, static_cast<int>(options.connect_timeout_ms));
  args.SetMaxReceiveMessageSize(static_cast<int>(options.message_bytes_max));
  args.SetMaxSendMessageSize(-1);
  if (!options.authority_override.empty()) args.SetSslTargetNameOverride(options.authority_override);
  return args;
}

struct UnaryCall {
  grpc::ClientContext context;
  grpc::ByteBuffer request;
  grpc::ByteBuffer response;
  GrpcChannel::UnaryDone done;
  std::string method;
};

class Channel final : public GrpcChannel {
 public:
  explicit Channel(ChannelOptions options) : options_(std::move(options)), token_(options_.bearer_token) {
    grpc::SslCredentialsOptions tls;
    tls.pem_root_certs = options_.ca_pem;
    tls.pem_cert_chain = options_.certificate_pem;
    tls.pem_private_key = options_.key_pem;
    channel_ = grpc::CreateCustomChannel(
        options_.target, options_.plaintext ? grpc::InsecureChannelCredentials() : grpc::SslCredentials(tls),
        channel_arguments(options_));
    stub_ = std::make_unique<grpc::GenericStub>(channel_);
  }

  Result<std::string> unary(std::string_view method, std::string request, const CallOptions& options) override {
    struct Wait {
      std::mutex mutex;
      std::condition_variable wake;
      std::optional<Result<std::string>> result;
    } wait;
    unary_async(
        method, std::move(request),
        [&wait](Result<std::string> result) {
          // Notified under the lock: `wait` dies as soon as the waiter sees the result.
          std::lock_guard lock(wait.mutex);
          wait.result = std::move(result);
          wait.wake.notify_one();
        },
        options);
    std::unique_lock lock(wait.mutex);
    wait.wake.wait(lock, [&] { return wait.result.has_value(); });
    return std::move(*wait.result);
  }

  void unary_async(std::string_view method, std::string request, UnaryDone done, const CallOptions& options) override {
    auto call = std::make_shared<UnaryCall>();
    call->method = path_of(method);
    call->request = to_byte_buffer(std::move(request));
    call->done = std::move(done);
    set_up(call->context, options, bearer_token());
    stub_->UnaryCall(&call->context, call->method, {}, &call->request, &call->response,
                     [call, target = options_.target, headers = options.response_headers](grpc::Status status) {
                       if (headers != nullptr) *headers = collect_headers(call->context);
                       UnaryDone finished = std::move(call->done);
                       if (status.ok()) return finished(to_string(call->response));
                       finished(fail(from_grpc_status(status, call->method, target)));
                     });
  }

  std::unique_ptr<ClientStream> stream(std::string_view method, const CallOptions& options) override {
    return open_blocking_stream(*stub_, path_of(method), options_.target, options, bearer_token());
  }

  std::shared_ptr<AsyncStream> stream_async(std::string_view method, StreamCallbacks callbacks,
                                            const CallOptions& options) override {
    BidiCall::Hooks hooks;
    hooks.on_message = [on_message = std::move(callbacks.on_message)](std::string message) mutable {
      if (on_message) on_message(std::move(message));
      return true;
    };
    hooks.on_done = std::move(callbacks.on_done);
    hooks.on_drain = std::move(callbacks.on_drain);
    auto call = std::make_shared<BidiCall>(path_of(method), options_.target, std::move(hooks));
    call->start(*stub_, options, bearer_token());
    return call;
  }

  Status wait_ready(int64_t timeout_ms) override {
    const auto deadline = std::chrono::system_clock::now() + std::chrono::milliseconds(timeout_ms);
    while (true) {
      const auto state = channel_->GetState(true);
      if (state == GRPC_CHANNEL_READY) return Status::ok();
      if (channel_->WaitForStateChange(state, deadline)) continue;
      // Only a call is told why there is no connection.
      CallOptions options;
      options.deadline_ms = 100;
      auto probe = unary("/grpc.health.v1.Health/Check", {}, options);
      if (channel_->GetState(false) == GRPC_CHANNEL_READY) return Status::ok();
      if (!probe && probe.error().code() == Code::kUnavailable) return probe.error();
      return Status(Code::kUnavailable, "CONNECT_TIMEOUT",
                    "no connection to " + options_.target + " after " + std::to_string(timeout_ms) +
                        " ms; check the address, the network and firewalls");
    }
  }

  void set_bearer_token(std::string token) override {
    std::lock_guard lock(mutex_);
    token_ = std::move(token);
  }
  const std::string& target() const override { return options_.target; }

 private:
  std::string bearer_token() const {
    std::lock_guard lock(mutex_);
    return token_;
  }

  const ChannelOptions options_;
  mutable std::mutex mutex_;
  std::string token_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<grpc::GenericStub> stub_;
};

}  // namespace

Result<std::unique_ptr<GrpcChannel>> GrpcChannel::connect(ChannelOptions options) {
  prepare_grpc();
  hold_grpc_threads();
  const auto invalid = [](std::string message) {
    return fail(Code::kInvalid, "CHANNEL_OPTIONS_INVALID", std::move(message));
  };
  if (options.target.find(':') == std::string::npos) {
    return invalid("the target '" + options.target + "' is not HOST:PORT");
  }
  if (!options.plaintext && options.ca_pem.find("BEGIN CERTIFICATE") == std::string::npos) {
    return invalid("the CA certificate is missing or not PEM; without it " + options.target + " cannot be verified");
  }
  if (options.certificate_pem.empty() != options.key_pem.empty()) {
    return invalid("a client certificate needs its key, and the key its certificate");
  }
  // gRPC reports a bad client certificate only as a channel that never connects.
  if (!options.certificate_pem.empty()) UCCP_RETURN_IF_ERROR(check_key_pair(options.certificate_pem, options.key_pem));
  if (options.bearer_token.find_first_of("\r\n") != std::string::npos) {
    return invalid("the bearer token contains a line break; strip the file that it was read from");
  }
  return std::make_unique<Channel>(std::move(options));
}

}  // namespace uccp::doors
