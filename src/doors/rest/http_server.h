// HttpServer: HTTP/1.1 connections on a port, plain or with TLS 1.3, on a few io threads.
//
// Invariants: a connection's requests are answered in order, one at a time; header, body, idle and write times are
// bounded, as are header and body sizes and the number of connections; one more connection is answered 503.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/limits.h"
#include "base/metrics.h"
#include "base/status.h"
#include "doors/net/tls_context.h"
#include "doors/rest/http.h"

namespace uccp::doors {

struct HttpServerOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 0;            // 0: any free one
  std::string certificate_pem;  // empty: plain HTTP
  std::string key_pem;
  std::string client_ca_pem;      // authorities of client certificates; empty: none is asked for
  DoorCertificates certificates;  // in place of these three, if it has a certificate
  size_t io_threads = 2;
  size_t connections_max = 10'000;
  size_t header_bytes_max = 16 * 1024;
  size_t body_bytes_max = limits::kMessageBytesMax;
  int64_t header_timeout_ms = 10'000;  // the handshake, and each header from its first byte
  int64_t idle_timeout_ms = 75'000;    // between requests
  int64_t body_timeout_ms = 30'000;    // without a byte of the body
  int64_t write_timeout_ms = 30'000;   // without a byte taken by the client
  // A body that comes, and answers that are taken, may take these times and as long as they need at this rate: who
  // sends a byte now and then does not hold a connection.
  int64_t bytes_per_s_min = 1024;
  // Prefix of the metrics <name>_connections, <name>_connections_refused_total, <name>_rejected_total.
  std::string metric = "uccp_http";
};

class HttpServer {
 public:
  HttpServer();
  ~HttpServer();  // stop(0)
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // Opens the port and answers which. The arguments must outlive the server. Errors: invalid PEM_INVALID,
  // failed_precondition KEY_MISMATCH or PORT_UNAVAILABLE. Requires: not started before.
  Result<uint16_t> start(HttpServerOptions options, HttpHandler& handler, const Clock& clock, MetricsRegistry& metrics);
  // What new connections get from now on; those that are open stay, unless their client's certificate is not taken any
  // more. Not for plain HTTP. From any thread, between start() and stop(). Errors: as start(); the old ones stay in
  // use.
  Status replace_certificates(DoorCertificates certificates);
  // Looks at the clients' certificates again: some may have been revoked.
  void check_clients();
  // Closes the port and idle connections, waits up to `grace_ms` for answers at work, closes the rest. Idempotent.
  void stop(int64_t grace_ms);

 private:
  struct Running;
  std::unique_ptr<Running> running_;
};

}  // namespace uccp::doors
