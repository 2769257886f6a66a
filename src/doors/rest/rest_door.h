// RestDoor: the contract over HTTPS as JSON, by the routes of the contract.
//
// Whatever is decided about a method is read from the contract; this door knows a few paths by itself: /health...,
// /openapi.json, /docs, POST /api/v1/batch and the form of POST /api/v1/events/subscribe. docs/rest.md is for its
// clients, docs/design/doors.md says how it works.
//
// Threads: the io threads of HttpServer; handlers are called on them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/status.h"
#include "call/handler.h"
#include "call/pipeline/pipeline.h"
#include "doors/rest/health.h"
#include "doors/rest/http_server.h"

namespace uccp::doors {

struct RestDoorOptions {
  HttpServerOptions http;
  // Comments on silent event streams.
  int64_t heartbeat_ms = 15'000;
  // Who may call this may see the detailed health documents: a cheap method that needs the role viewer. (GetHealth
  // itself is public.)
  std::string detailed_health_method = "uccp.v1.Administration/GetVersion";
  // For the OpenAPI document: what is built on this node; null: everything. Must outlive the door.
  const call::HandlerTable* handlers = nullptr;
  std::string version = "1.0.0";
  // Folder of the files of /docs; empty: ../share/apidocs beside the program's folder.
  std::string pages_directory;
  // Origins whose pages may call, such as "https://console.example.com", or "*" for all; empty: none.
  std::vector<std::string> cors_origins;
};

class RestDoor {
 public:
  RestDoor();
  ~RestDoor();  // stop(0)
  RestDoor(const RestDoor&) = delete;
  RestDoor& operator=(const RestDoor&) = delete;

  // Opens the port and answers which. The arguments must outlive the door. Errors: those of HttpServer::start().
  Result<uint16_t> start(RestDoorOptions options, call::Pipeline& pipeline, const Clock& clock,
                         MetricsRegistry& metrics, HealthSource& health);
  // As HttpServer.
  Status replace_certificates(DoorCertificates certificates) {
    return server_.replace_certificates(std::move(certificates));
  }
  void check_clients() { server_.check_clients(); }
  // Takes no new requests, waits up to `grace_ms` for those at work, then ends them. Blocks. Idempotent.
  void stop(int64_t grace_ms);

 private:
  class Router;
  std::unique_ptr<Router> router_;
  HttpServer server_;
};

}  // namespace uccp::doors
