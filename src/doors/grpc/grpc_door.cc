#include "doors/grpc/grpc_door.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <chrono>
#include <mutex>
#include <thread>
#include <vector>

#include "doors/grpc/grpc_call.h"
#include "doors/grpc/grpc_connection.h"
#include "doors/grpc/io_loop.h"
#include "doors/grpc/listener.h"
#include "doors/net/tls_context.h"

namespace uccp::doors {
namespace {

// How long answers of calls that were ended may take to leave.
constexpr int64_t kFarewellMs = 500;

}  // namespace

struct GrpcDoor::Running {
  Running(GrpcDoorOptions door_options, call::Pipeline& pipeline, const Clock& clock, MetricsRegistry& metrics)
      : options(std::move(door_options)),
        labels(options.name.empty() ? Labels() : Labels{{"door", options.name}}),
        active_calls(metrics.gauge("uccp_grpc_active_calls", "gRPC calls at work, streams included", labels)),
        active_connections(metrics.gauge("uccp_grpc_active_connections", "Active gRPC connections", labels)),
        refused(metrics.counter("uccp_grpc_connections_refused_total", "gRPC connections beyond the limit", labels)),
        shared(std::make_shared<GrpcShared>(pipeline, clock, options.metadata_bytes_max, options.foreign)),
        listener(std::make_shared<Listener>()) {
    connection.streams_max = options.streams_per_connection_max;
    connection.handshake_timeout_ms = options.handshake_timeout_ms;
    connection.idle_ms = options.connection_idle_ms;
    for (size_t i = 0; i < std::max<size_t>(1, options.io_threads); ++i)
      loops.push_back(std::make_shared<IoLoop>(clock, options.node));
  }

  Status use(const DoorCertificates& certificates);
  void on_connection(int fd, std::string address);
  void on_tick();
  // Runs on each loop for each of its connections.
  template <typename F>
  void each_connection(F function) {
    for (const IoLoopPtr& loop : loops) {
      loop->post(io_task([raw = loop.get(), function] {
        const auto all = raw->sources();
        for (const auto& source : all) {
          if (auto* open = dynamic_cast<GrpcConnection*>(source.get())) function(*open);
        }
      }));
    }
  }
  // False if the time was over before.
  template <typename F>
  static bool wait(int64_t ms, F condition) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(ms);
    while (!condition()) {
      if (std::chrono::steady_clock::now() >= until) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return true;
  }

  const GrpcDoorOptions options;
  const Labels labels;
  GrpcConnectionOptions connection;
  Gauge& active_calls;
  Gauge& active_connections;
  Counter& refused;
  const GrpcSharedPtr shared;
  std::mutex tls_mutex;  // of the two
  std::shared_ptr<ssl_ctx_st> tls;
  std::shared_ptr<const PeerTrust> clients;
  std::shared_ptr<Listener> listener;
  std::vector<IoLoopPtr> loops;
  size_t next_loop = 0;
};

void GrpcDoor::Running::on_connection(int fd, std::string address) {
  if (shared->connections.load() >= options.connections_max) {
    refused.add();
    ::close(fd);
    return;
  }
  const IoLoopPtr& loop = loops[next_loop++ % loops.size()];
  std::shared_ptr<ssl_ctx_st> context;
  {
    std::lock_guard lock(tls_mutex);
    context = tls;
  }
  auto open = std::make_shared<GrpcConnection>(shared, loop, connection, std::make_unique<TlsSocket>(fd, context.get()),
                                               std::move(address));
  loop->post(io_task([open] { open->begin(); }));
}

Status GrpcDoor::Running::use(const DoorCertificates& certificates) {
  UCCP_TRY(std::shared_ptr<ssl_ctx_st> made, make_tls_context(certificates, TlsProtocol::kHttp2));
  std::lock_guard lock(tls_mutex);
  tls = std::move(made);
  clients = certificates.clients;
  return Status::ok();
}

void GrpcDoor::Running::on_tick() {
  shared->builtin.publish();
  active_calls.set(static_cast<double>(shared->calls.load()));
  active_connections.set(static_cast<double>(shared->connections.load()));
}

GrpcDoor::GrpcDoor() = default;
GrpcDoor::~GrpcDoor() { stop(0); }

Result<uint16_t> GrpcDoor::start(GrpcDoorOptions options, call::Pipeline& pipeline, const Clock& clock,
                                 MetricsRegistry& metrics, std::function<bool()> ready) {
  auto running = std::make_unique<Running>(std::move(options), pipeline, clock, metrics);
  const GrpcDoorOptions& used = running->options;
  DoorCertificates shown = used.certificates;
  if (shown.certificate_pem.empty()) {
    UCCP_TRY(shown, door_certificates(used.certificate_pem, used.key_pem, used.client_ca_pem));
  }
  UCCP_RETURN_IF_ERROR(running->use(shown));
  UCCP_RETURN_IF_ERROR(running->listener->listen(used.host, used.port));
  running->shared->builtin.set_ready(std::move(ready));
  running->listener->on_connection(
      [raw = running.get()](int fd, std::string address) { raw->on_connection(fd, std::move(address)); });
  running->listener->also_tick([raw = running.get()] { raw->on_tick(); });
  for (const IoLoopPtr& loop : running->loops) loop->start();
  IoLoop& first = *running->loops[0];
  first.post(io_task([&first, listener = running->listener] { first.watch(listener->fd(), EPOLLIN, listener); }));
  running_ = std::move(running);
  return running_->listener->port();
}

Status GrpcDoor::replace_certificates(DoorCertificates certificates) {
  UCCP_RETURN_IF_ERROR(running_->use(certificates));
  check_clients();
  return Status::ok();
}

void GrpcDoor::check_clients() {
  std::shared_ptr<const PeerTrust> clients;
  {
    std::lock_guard lock(running_->tls_mutex);
    clients = running_->clients;
  }
  if (clients) running_->each_connection([clients](GrpcConnection& open) { open.check_client(clients); });
}

void GrpcDoor::stop(int64_t grace_ms) {
  if (running_ == nullptr) return;
  Running& running = *running_;
  IoLoop& first = *running.loops[0];
  first.post(io_task([&first, listener = running.listener] {
    first.unwatch(listener->fd(), *listener);
    listener->close();
  }));
  running.shared->builtin.close();
  running.each_connection([](GrpcConnection& open) { open.drain(); });
  const auto no_calls = [&running] { return running.shared->calls.load() == 0; };
  if (!Running::wait(grace_ms, no_calls)) {
    running.each_connection([](GrpcConnection& open) {
      open.end_calls(
          Status(Code::kUnavailable, "SHUTTING_DOWN", "this node is shutting down; use another one or retry"));
    });
    Running::wait(kFarewellMs, no_calls);
  }
  running.each_connection([](GrpcConnection& open) { open.close(); });
  Running::wait(kFarewellMs, [&running] { return running.shared->connections.load() == 0; });
  for (const IoLoopPtr& loop : running.loops) loop->stop();
  running_.reset();
}

}  // namespace uccp::doors
