#include "doors/grpc/grpc_door.h"

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/security/server_credentials.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/limits.h"
#include "doors/deadline.h"
#include "doors/grpc/builtin_call.h"
#include "doors/grpc/connections.h"
#include "doors/grpc/grpc_call.h"
#include "doors/grpc_client/process.h"

namespace uccp::doors {
namespace {

// How often deadlines and health are looked at.
constexpr auto kSweepInterval = std::chrono::milliseconds(100);

std::shared_ptr<grpc::ServerCredentials> server_credentials(const GrpcDoorOptions& options) {
  grpc::SslServerCredentialsOptions tls(options.client_ca_pem.empty()
                                            ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                                            : GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY);
  tls.pem_root_certs = options.client_ca_pem;
  tls.pem_key_cert_pairs.push_back({options.key_pem, options.certificate_pem});
  return grpc::SslServerCredentials(tls);
}

void set_limits(grpc::ServerBuilder& builder, const GrpcDoorOptions& options) {
  // The pipeline's limit answers with a reason and details; gRPC's own is the wall behind it.
  builder.SetMaxReceiveMessageSize(static_cast<int>(2 * limits::kMessageBytesMax));
  builder.SetMaxSendMessageSize(-1);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, static_cast<int>(options.streams_per_connection_max));
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, static_cast<int>(options.metadata_bytes_max));
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, static_cast<int>(options.handshake_timeout_ms));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, static_cast<int>(options.connection_idle_ms));
  // Two servers never share a port by accident.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // Clients may ping each second, also between calls; the server looks for dead ones itself.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 1000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 20'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
}

}  // namespace

struct GrpcDoor::Running final : grpc::CallbackGenericService {
  Running(GrpcDoorOptions door_options, call::Pipeline& pipeline, const Clock& clock_used,
          MetricsRegistry& metrics, std::function<bool()> is_ready)
      : options(std::move(door_options)), clock(clock_used), ready(std::move(is_ready)),
        active_calls(metrics.gauge("uccp_grpc_active_calls", "gRPC calls at work, streams included")),
        shared(std::make_shared<GrpcCallContext>(pipeline, clock, options.reply_threads)) {}

  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext* context) override {
    if (auto* reactor = start_builtin(context->method(), ready, watches)) return reactor;
    return GrpcCall::start(shared, context);
  }

  void sweep() {
    std::unique_lock lock(mutex);
    while (!wake.wait_for(lock, kSweepInterval, [&] { return stopping; })) {
      lock.unlock();
      watches.publish(ready());
      active_calls.set(static_cast<double>(shared->calls.active()));
      for (const call::CallPtr& call : shared->calls.expired(clock.boot())) end_at_deadline(*call);
      lock.lock();
    }
  }

  const GrpcDoorOptions options;
  const Clock& clock;
  const std::function<bool()> ready;
  Gauge& active_calls;
  const GrpcCallContextPtr shared;
  HealthWatchList watches;
  uint16_t port = 0;
  std::mutex mutex;
  std::condition_variable wake;
  bool stopping = false;
  std::thread sweeper;
  // Last: gone before all that its calls use.
  std::unique_ptr<grpc::Server> server;
};

GrpcDoor::GrpcDoor() = default;
GrpcDoor::~GrpcDoor() { stop(0); }

Result<uint16_t> GrpcDoor::start(GrpcDoorOptions options, call::Pipeline& pipeline, const Clock& clock,
                                 MetricsRegistry& metrics, std::function<bool()> ready) {
  prepare_grpc();
  hold_grpc_threads();
  UCCP_RETURN_IF_ERROR(check_ec_certificate(options.certificate_pem));
  UCCP_RETURN_IF_ERROR(check_key_pair(options.certificate_pem, options.key_pem));
  auto running = std::make_unique<Running>(std::move(options), pipeline, clock, metrics, std::move(ready));
  const std::string address = running->options.host + ":" + std::to_string(running->options.port);
  grpc::ServerBuilder builder;
  set_limits(builder, running->options);
  int port = 0;
  builder.AddListeningPort(address, server_credentials(running->options), &port);
  builder.RegisterCallbackGenericService(running.get());
  running->server = builder.BuildAndStart();
  if (running->server == nullptr || port == 0) {
    return fail(Code::kFailedPrecondition, "PORT_UNAVAILABLE",
                "gRPC cannot listen on " + address + "; another process may use the port, or the host is not local");
  }
  running->port = static_cast<uint16_t>(port);
  running->sweeper = std::thread([raw = running.get()] { raw->sweep(); });
  // Asks for the port only: the registry outlives the door.
  metrics.callback("uccp_grpc_active_connections", "Active gRPC connections",
                   [port] { return static_cast<double>(count_connections(static_cast<uint16_t>(port))); });
  running_ = std::move(running);
  return static_cast<uint16_t>(port);
}

void GrpcDoor::stop(int64_t grace_ms) {
  if (running_ == nullptr) return;
  running_->watches.close();
  // Calls that are still at work after the grace are cancelled by gRPC, which reaches their handlers.
  running_->server->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(grace_ms));
  {
    std::lock_guard lock(running_->mutex);
    running_->stopping = true;
  }
  running_->wake.notify_one();
  running_->sweeper.join();
  running_->shared->replies.stop();
  running_.reset();
}

}  // namespace uccp::doors
