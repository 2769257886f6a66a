#include "doors/rest/http_server.h"

#include <boost/asio/dispatch.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>

#include <atomic>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "base/log.h"
#include "doors/net/tls_context.h"
#include "doors/rest/http_connection.h"

namespace uccp::doors {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using ErrorCode = boost::system::error_code;

// Whoever answers a call may let go of its connection last, on a thread of its own and after the server has stopped:
// the sockets of a loop keep their io_context.
using IoContextPtr = std::shared_ptr<asio::io_context>;

// Connections above the limit that are still given a 503; beyond these they are just closed.
constexpr size_t kRefusalsMax = 64;
constexpr int kBacklog = 1024;

std::string address_of(const tcp::socket& socket) {
  ErrorCode error;
  const auto peer = socket.remote_endpoint(error);
  if (error) return {};
  const std::string host = peer.address().to_string();
  return (peer.address().is_v6() ? "[" + host + "]" : host) + ":" + std::to_string(peer.port());
}

class PlainTransport final : public Transport {
 public:
  PlainTransport(IoContextPtr io, tcp::socket socket)
      : io_(std::move(io)), socket_(std::move(socket)), address_(address_of(socket_)) {}
  void handshake(Done done) override { done(true, 0); }
  void read_some(char* to, size_t size, Done done) override {
    socket_.async_read_some(
        asio::buffer(to, size),
        [done = std::move(done)](const ErrorCode& error, size_t bytes) mutable { done(!error, bytes); });
  }
  void write_some(const char* from, size_t size, Done done) override {
    socket_.async_write_some(
        asio::buffer(from, size),
        [done = std::move(done)](const ErrorCode& error, size_t bytes) mutable { done(!error, bytes); });
  }
  void shut_down() override {
    ErrorCode ignored;
    socket_.shutdown(tcp::socket::shutdown_send, ignored);
  }
  void close() override {
    ErrorCode ignored;
    socket_.close(ignored);
  }
  void post(std::move_only_function<void()> task) override { asio::dispatch(socket_.get_executor(), std::move(task)); }
  std::string address() const override { return address_; }
  std::string certificate_pem() const override { return {}; }

 private:
  const IoContextPtr io_;  // first: outlives the socket
  tcp::socket socket_;
  const std::string address_;
};

class TlsTransport final : public Transport {
 public:
  TlsTransport(IoContextPtr io, tcp::socket socket, asio::ssl::context& context)
      : io_(std::move(io)), address_(address_of(socket)), stream_(std::move(socket), context) {}
  void handshake(Done done) override {
    stream_.async_handshake(asio::ssl::stream_base::server,
                            [done = std::move(done)](const ErrorCode& error) mutable { done(!error, 0); });
  }
  void read_some(char* to, size_t size, Done done) override {
    stream_.async_read_some(
        asio::buffer(to, size),
        [done = std::move(done)](const ErrorCode& error, size_t bytes) mutable { done(!error, bytes); });
  }
  void write_some(const char* from, size_t size, Done done) override {
    stream_.async_write_some(
        asio::buffer(from, size),
        [done = std::move(done)](const ErrorCode& error, size_t bytes) mutable { done(!error, bytes); });
  }
  // Only sends close_notify: the client's own is not waited for. Requires that no write is outstanding.
  void shut_down() override {
    if (shut_down_) return;
    shut_down_ = true;
    SSL_set_quiet_shutdown(stream_.native_handle(), 0);
    stream_.async_shutdown([keep = keep_alive_.lock()](const ErrorCode&) {});
  }
  void close() override {
    ErrorCode ignored;
    stream_.lowest_layer().close(ignored);
  }
  void post(std::move_only_function<void()> task) override { asio::dispatch(stream_.get_executor(), std::move(task)); }
  std::string address() const override { return address_; }
  Status check_client(const PeerTrust& clients) const override {
    return check_client_again(const_cast<asio::ssl::stream<tcp::socket>&>(stream_).native_handle(), clients);
  }
  std::string certificate_pem() const override {
    return client_certificate_pem(const_cast<asio::ssl::stream<tcp::socket>&>(stream_).native_handle());
  }
  // The connection that owns this, for operations without a callback into it.
  void owned_by(std::weak_ptr<void> owner) override { keep_alive_ = std::move(owner); }

 private:
  const IoContextPtr io_;  // first: outlives the socket
  const std::string address_;
  asio::ssl::stream<tcp::socket> stream_;
  std::weak_ptr<void> keep_alive_;
  bool shut_down_ = false;
};

}  // namespace

struct HttpServer::Running {
  // One io thread with the connections that it owns.
  struct Loop {
    const IoContextPtr io = std::make_shared<asio::io_context>(1);
    asio::steady_timer timer{*io};
    std::set<std::shared_ptr<HttpConnection>> connections;
    std::thread thread;
  };

  Running(HttpServerOptions server_options, HttpHandler& request_handler, const Clock& clock_used,
          MetricsRegistry& metrics)
      : options(std::move(server_options)),
        handler(request_handler),
        clock(clock_used),
        counters{metrics.gauge(options.metric + "_connections", "Open HTTP connections"),
                 metrics.counter(options.metric + "_connections_refused_total", "Connections beyond the limit"),
                 metrics.counter(options.metric + "_rejected_total", "Requests refused before they were routed")} {
    const int64_t shortest = std::min(
        {options.header_timeout_ms, options.idle_timeout_ms, options.body_timeout_ms, options.write_timeout_ms});
    tick = std::chrono::milliseconds(std::clamp<int64_t>(shortest / 4, 20, 250));
    for (size_t i = 0; i < std::max<size_t>(1, options.io_threads); ++i) loops.push_back(std::make_unique<Loop>());
  }

  Status listen();
  void accept();
  void on_accept(tcp::socket socket, Loop& loop);
  void arm(Loop& loop);
  Status use(const DoorCertificates& certificates);

  const HttpServerOptions options;
  HttpHandler& handler;
  const Clock& clock;
  HttpCounters counters;
  std::chrono::milliseconds tick;
  std::mutex tls_mutex;                     // of the two
  std::shared_ptr<asio::ssl::context> tls;  // null: plain HTTP
  std::shared_ptr<const PeerTrust> clients;
  std::vector<std::unique_ptr<Loop>> loops;
  std::unique_ptr<tcp::acceptor> acceptor;
  std::unique_ptr<asio::steady_timer> accept_pause;
  size_t next_loop = 0;
  std::atomic<size_t> open{0};
  std::atomic<bool> stopping{false};  // no new connections
  std::atomic<bool> closing{false};   // the loops run out
};

Status HttpServer::Running::listen() {
  const auto unavailable = [&](const ErrorCode& error) {
    return Status(
        Code::kFailedPrecondition, "PORT_UNAVAILABLE",
        "HTTP cannot listen on " + options.host + ":" + std::to_string(options.port) + ": " + error.message());
  };
  ErrorCode error;
  tcp::resolver resolver(*loops[0]->io);
  const auto found = resolver.resolve(options.host, std::to_string(options.port), tcp::resolver::passive, error);
  if (error || found.empty()) return unavailable(error);
  const tcp::endpoint endpoint = found.begin()->endpoint();
  acceptor = std::make_unique<tcp::acceptor>(*loops[0]->io);
  acceptor->open(endpoint.protocol(), error);
  if (!error) acceptor->set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor->bind(endpoint, error);
  if (!error) acceptor->listen(kBacklog, error);
  return error ? unavailable(error) : Status::ok();
}

void HttpServer::Running::accept() {
  Loop& loop = *loops[next_loop++ % loops.size()];
  acceptor->async_accept(*loop.io, [this, &loop](const ErrorCode& error, tcp::socket socket) {
    if (stopping.load() || error == asio::error::operation_aborted) return;
    if (!error) {
      asio::post(*loop.io, [this, &loop, socket = std::move(socket)]() mutable { on_accept(std::move(socket), loop); });
      return accept();
    }
    // Out of descriptors, most likely: the waiting client is served when one is free.
    log::warn("cannot accept a connection", {{"error", error.message()}});
    accept_pause->expires_after(std::chrono::milliseconds(100));
    accept_pause->async_wait([this](const ErrorCode& cancelled) {
      if (!cancelled && !stopping.load()) accept();
    });
  });
}

void HttpServer::Running::on_accept(tcp::socket socket, Loop& loop) {
  const size_t count = open.load();
  if (stopping.load() || count >= options.connections_max + kRefusalsMax) {
    counters.refused.add();
    return;
  }
  ErrorCode ignored;
  socket.set_option(tcp::no_delay(true), ignored);
  std::unique_ptr<Transport> transport;
  std::shared_ptr<asio::ssl::context> context;
  {
    std::lock_guard lock(tls_mutex);
    context = tls;
  }
  // The stream keeps what OpenSSL needs of the context.
  if (context) transport = std::make_unique<TlsTransport>(loop.io, std::move(socket), *context);
  else transport = std::make_unique<PlainTransport>(loop.io, std::move(socket));
  Transport& raw = *transport;
  auto connection = std::make_shared<HttpConnection>(std::move(transport), options, handler, clock, counters,
                                                     count >= options.connections_max);
  raw.owned_by(connection);
  open.fetch_add(1);
  loop.connections.insert(connection);
  connection->on_gone = [this, &loop](HttpConnection* gone) {
    open.fetch_sub(1);
    loop.connections.erase(gone->shared_from_this());
  };
  connection->begin();
}

Status HttpServer::Running::use(const DoorCertificates& certificates) {
  UCCP_TRY(TlsContextPtr context, make_tls_context(certificates, TlsProtocol::kHttp1));
  auto made = std::make_shared<asio::ssl::context>(context.release());
  std::lock_guard lock(tls_mutex);
  tls = std::move(made);
  clients = certificates.clients;
  return Status::ok();
}

void HttpServer::Running::arm(Loop& loop) {
  loop.timer.expires_after(tick);
  loop.timer.async_wait([this, &loop](const ErrorCode& error) {
    // A cancellation that comes when the timer has fired already is not seen as an error.
    if (error || closing.load()) return;
    const BootTime now = clock.boot();
    // A tick may close connections, which takes them out of the set.
    const std::vector<std::shared_ptr<HttpConnection>> all(loop.connections.begin(), loop.connections.end());
    for (const auto& connection : all) connection->tick(now);
    arm(loop);
  });
}

HttpServer::HttpServer() = default;
HttpServer::~HttpServer() { stop(0); }

Result<uint16_t> HttpServer::start(HttpServerOptions options, HttpHandler& handler, const Clock& clock,
                                   MetricsRegistry& metrics) {
  auto running = std::make_unique<Running>(std::move(options), handler, clock, metrics);
  DoorCertificates shown = running->options.certificates;
  if (shown.certificate_pem.empty() && !running->options.certificate_pem.empty()) {
    UCCP_TRY(shown, door_certificates(running->options.certificate_pem, running->options.key_pem,
                                      running->options.client_ca_pem));
  }
  if (!shown.certificate_pem.empty()) UCCP_RETURN_IF_ERROR(running->use(shown));
  UCCP_RETURN_IF_ERROR(running->listen());
  ErrorCode error;
  const uint16_t port = running->acceptor->local_endpoint(error).port();
  running->accept_pause = std::make_unique<asio::steady_timer>(*running->loops[0]->io);
  running->accept();
  for (const auto& loop : running->loops) {
    running->arm(*loop);
    loop->thread = std::thread([raw = loop.get()] { raw->io->run(); });
  }
  running_ = std::move(running);
  return port;
}

Status HttpServer::replace_certificates(DoorCertificates certificates) {
  UCCP_RETURN_IF_ERROR(running_->use(certificates));
  check_clients();
  return Status::ok();
}

void HttpServer::check_clients() {
  std::shared_ptr<const PeerTrust> clients;
  {
    std::lock_guard lock(running_->tls_mutex);
    clients = running_->clients;
  }
  if (!clients) return;
  for (const auto& loop : running_->loops) {
    asio::post(*loop->io, [raw = loop.get(), clients] {
      const std::vector<std::shared_ptr<HttpConnection>> all(raw->connections.begin(), raw->connections.end());
      for (const auto& connection : all) connection->check_client(clients);
    });
  }
}

void HttpServer::stop(int64_t grace_ms) {
  if (running_ == nullptr) return;
  Running& running = *running_;
  running.stopping.store(true);
  asio::post(*running.loops[0]->io, [&running] {
    ErrorCode ignored;
    running.acceptor->close(ignored);
    running.accept_pause->cancel();
  });
  const auto each = [&running](void (HttpConnection::*method)()) {
    for (const auto& loop : running.loops) {
      asio::post(*loop->io, [raw = loop.get(), method] {
        const std::vector<std::shared_ptr<HttpConnection>> all(raw->connections.begin(), raw->connections.end());
        for (const auto& connection : all) (connection.get()->*method)();
      });
    }
  };
  each(&HttpConnection::drain);
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(grace_ms);
  while (running.open.load() > 0 && std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  running.closing.store(true);
  each(&HttpConnection::close);
  for (const auto& loop : running.loops) {
    asio::post(*loop->io, [raw = loop.get()] { raw->timer.cancel(); });
  }
  // Closed sockets end their operations; then nothing is left and run() returns.
  for (const auto& loop : running.loops) loop->thread.join();
  running_.reset();
}

}  // namespace uccp::doors
