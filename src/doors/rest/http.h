// HTTP/1.1 as the rest of this folder sees it: requests, answers, and who handles them. No Asio, no Beast.
//
// Threads: a connection belongs to one io thread. HttpHandler and the events of an exchange are called on it; the
// methods of HttpExchange are too, except post() and queued_bytes(), which any thread may call.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"

namespace uccp::doors {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string verb;
  std::string path;     // raw, without the query
  std::string query;    // raw, without '?'
  HttpHeaders headers;  // names in lower case
  std::string body;     // empty with BodyMode::kStreamed
  bool has_body = false;
  std::string address;          // of the client, with port
  std::string certificate_pem;  // verified, or empty

  // Empty if absent. `name` in lower case.
  std::string_view header(std::string_view name) const {
    for (const auto& [key, value] : headers) {
      if (key == name) return value;
    }
    return {};
  }
};

struct HttpResponse {
  int status = 200;
  HttpHeaders headers;  // Content-Length, Date and Connection are added
  std::string body;
};

struct HttpEvents {
  std::move_only_function<void(std::string_view chunk)> on_body;  // kStreamed: the next is read after it returned
  std::move_only_function<void()> on_body_end;
  // The client went away before the answer was complete. Last event.
  std::move_only_function<void()> on_closed;
  // queued_bytes() fell to 64 KiB, or to 0.
  std::move_only_function<void()> on_drain;
  // A few times a second, while the answer is not complete.
  std::move_only_function<void(BootTime now)> on_tick;
};

// The way to answer one request: respond() once, or start(), write()..., end(). Afterwards everything is ignored.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;
  virtual void set_events(HttpEvents events) = 0;
  virtual void respond(HttpResponse response) = 0;
  // Begins an answer of unknown length; `head.body` is not used.
  virtual void start(HttpResponse head) = 0;
  virtual void write(std::string chunk) = 0;
  virtual void end() = 0;
  // Closes the connection, so that the client sees that the answer is incomplete.
  virtual void abort() = 0;
  // Bytes given to respond() and write() that the client's socket has not taken.
  virtual size_t queued_bytes() const = 0;
  // Runs `task` on the connection's thread; at once when called there.
  virtual void post(std::move_only_function<void()> task) = 0;
};
using HttpExchangePtr = std::shared_ptr<HttpExchange>;

enum class BodyMode : uint8_t { kBuffered, kStreamed };

class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  // How the body of this request is to be read; `head` has no body yet.
  virtual BodyMode body_mode(const HttpRequest& head) = 0;
  // Answers, now or later.
  virtual void handle(HttpRequest request, HttpExchangePtr exchange) = 0;
  // The answer to what never became a request: 400, 408, 413, 431 or 503.
  virtual HttpResponse refusal(int status, std::string_view reason, std::string_view detail) = 0;
};

}  // namespace uccp::doors
