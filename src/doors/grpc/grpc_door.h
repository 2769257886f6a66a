// GrpcDoor: the contract over gRPC. Takes any method as bytes, makes a Call of it, and gives it to the pipeline.
//
// HTTP/2 is nghttp2's, TLS OpenSSL's; the sockets are on threads of the door's own (IoLoop), which also run the
// pipeline and the handlers. Two services are answered by the door itself, without credentials, because they say only
// what the public contract and a load balancer's probe say anyway: server reflection (v1 and v1alpha) and
// grpc.health.v1.Health. docs/design/doors.md has the details and says why this is not grpc++.
//
// Invariants: TLS 1.3 only; a client certificate is asked for and, if shown, verified; what waits for a client is
// bounded, for each call and each connection; a call ends at its deadline even if its handler does not.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/lent_turns.h"
#include "base/metrics.h"
#include "base/status.h"
#include "call/pipeline/pipeline.h"
#include "doors/foreign_api.h"
#include "doors/net/tls_context.h"

namespace uccp::doors {

struct GrpcDoorOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 0;  // 0: any free one
  std::string certificate_pem;
  std::string key_pem;
  // Authorities of client certificates; empty: none is asked for.
  std::string client_ca_pem;
  // In place of the three above, if it has a certificate.
  DoorCertificates certificates;
  size_t io_threads = 2;
  size_t connections_max = 10'000;
  uint32_t streams_per_connection_max = 10'000;
  size_t metadata_bytes_max = 16 * 1024;
  int64_t handshake_timeout_ms = 10'000;
  int64_t connection_idle_ms = 15 * 60'000;
  // The node's loop, whose turns the door's threads take when it sleeps; null: it is always left to itself.
  LentTurns* node = nullptr;
  // With handlers the door speaks another API than the contract: nothing else is answered but health and reflection.
  ForeignApi foreign;
  std::string name;  // label of the door's metrics; empty: none
};

class GrpcDoor {
 public:
  GrpcDoor();
  ~GrpcDoor();  // stop(0)
  GrpcDoor(const GrpcDoor&) = delete;
  GrpcDoor& operator=(const GrpcDoor&) = delete;

  // Opens the port and answers which. `ready` says whether health checks are answered SERVING; callable from any
  // thread. All arguments must outlive the door. Errors: invalid PEM_INVALID, failed_precondition KEY_MISMATCH or
  // PORT_UNAVAILABLE. Requires: not started before.
  Result<uint16_t> start(GrpcDoorOptions options, call::Pipeline& pipeline, const Clock& clock,
                         MetricsRegistry& metrics, std::function<bool()> ready);
  // What new connections get from now on; those that are open stay, unless their client's certificate is not taken any
  // more. From any thread, between start() and stop(). Errors: as start(); the old ones stay in use.
  Status replace_certificates(DoorCertificates certificates);
  // Looks at the clients' certificates again: some may have been revoked.
  void check_clients();
  // Takes no new calls, waits up to `grace_ms` for those at work, then cancels them. Blocks. Idempotent.
  void stop(int64_t grace_ms);

 private:
  struct Running;
  std::unique_ptr<Running> running_;
};

}  // namespace uccp::doors
