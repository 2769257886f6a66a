// GrpcCalls: calls and streams over a few HTTP/2 connections, all in the caller's thread. What every load generator
// that speaks gRPC stands on.
//
// On nghttp2, since the generator shares the cores with what it measures: a call costs it a sixth of what grpc++ takes.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "bench/load.h"

namespace uccp::bench {

// Codes of gRPC that generators tell apart.
inline constexpr int kGrpcOk = 0, kGrpcDeadlineExceeded = 4, kGrpcNotFound = 5, kGrpcResourceExhausted = 8,
                     kGrpcUnavailable = 14;

// The headers of calls of one method. Outlives the calls.
class CallHeaders {
 public:
  // `deadline_ms`: told to the server; 0: none.
  explicit CallHeaders(std::string_view method, int64_t deadline_ms = 0, const std::string& consistency = {});
  const std::vector<std::pair<std::string, std::string>>& fields() const { return fields_; }

 private:
  std::vector<std::pair<std::string, std::string>> fields_;
};

struct GrpcCall;

// Whoever makes calls. Told in turn(), and may begin others there.
class GrpcCaller {
 public:
  virtual ~GrpcCaller() = default;
  // The call is destroyed afterwards.
  virtual void on_ended(GrpcCall& call, SteadyTime now) = 0;
  // Of a stream only: one message.
  virtual void on_message(GrpcCall&, std::string_view) {}
};

struct GrpcCall {
  GrpcCall(GrpcCaller& who, std::string_view message);
  virtual ~GrpcCall() = default;
  // The message of a unary call that was answered; empty if there is none.
  std::string_view answer() const;

  GrpcCaller& caller;
  std::string request;  // with gRPC's prefix
  std::string reply;    // the same
  int status = kGrpcUnavailable;
  std::string message = "the connection or the stream ended without a status";

  // Of GrpcCalls.
  size_t sent = 0;
  int32_t stream = -1;
  bool streaming = false;  // its answers are told one by one
  bool more = false;       // further messages may be sent
};

class GrpcCalls {
 public:
  // Opens `connections` connections, to the targets in turn. Errors: unavailable CONNECT_FAILED.
  static Result<std::unique_ptr<GrpcCalls>> connect(const std::vector<std::string>& targets, const TlsIdentity& tls,
                                                    int connections);
  virtual ~GrpcCalls() = default;

  virtual size_t connections() const = 0;
  // Begins a unary call; on the connection `at` modulo their number, as with streams.
  virtual void start(size_t at, const CallHeaders& headers, std::unique_ptr<GrpcCall> call, SteadyTime deadline) = 0;
  // Opens a stream in both directions; it lasts as long as the connection, or until the server ends it.
  virtual GrpcCall& open_stream(size_t at, const CallHeaders& headers, GrpcCaller& caller) = 0;
  // Opens a stream from the server: one request, and messages until the server ends it.
  virtual void listen(size_t at, const CallHeaders& headers, std::string_view request, GrpcCaller& caller) = 0;
  virtual void send(size_t at, GrpcCall& stream, std::string_view message) = 0;
  // Sends what was begun, waits for answers at most until `limit`, and tells callers. Returns how many calls ended.
  virtual size_t turn(SteadyTime limit) = 0;
  virtual bool all_closed() const = 0;
};

}  // namespace uccp::bench
