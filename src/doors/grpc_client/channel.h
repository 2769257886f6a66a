// GrpcChannel: calls of a UCCP server over gRPC, by method path and serialized messages.
//
// The one client channel of the CLI, the agent and tests. No generated stubs and no gRPC types: a method is named as in
// the contract ("uccp.v1.TaskScheduling/ScheduleTask", a leading slash is allowed), messages are protobuf bytes, errors
// are Status with the server's reason and details.
//
// Invariants: TLS 1.3 only (see process.h); a call is never sent twice by this class. A change (Method::mutating) whose
// answer was lost is kOutcomeUnknown, never kUnavailable: the latter always means that nothing was done.
// Thread: a channel may be used from any number of threads. Calls keep what they need of it alive.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/limits.h"
#include "base/status.h"

namespace uccp::doors {

using Metadata = std::vector<std::pair<std::string, std::string>>;

struct ChannelOptions {
  std::string target;           // "host:port", "[::1]:port"
  std::string ca_pem;           // who must have signed the server's certificate; required
  std::string certificate_pem;  // client certificate and key; both or none
  std::string key_pem;
  std::string bearer_token;  // JWT or API key; empty: none
  bool plaintext = false;    // no TLS, so nothing of the above: only for servers that are not ours
  // The name that the server's certificate must have; empty: the host of `target`.
  std::string authority_override;
  // Pings on a silent connection, so that a dead peer is noticed within twice this time.
  int64_t keepalive_ms = 10'000;
  // A call on a connection that is not up yet fails after this time if its own deadline is later.
  int64_t connect_timeout_ms = 5'000;
  // Waiting time of the second and of later attempts to connect, with jitter.
  int64_t reconnect_ms_min = 100;
  int64_t reconnect_ms_max = 5'000;
  // Bytes of a message that is received. Requests are limited by the server.
  size_t message_bytes_max = limits::kMessageBytesMax + 64 * 1024;
};

struct CallOptions {
  int64_t deadline_ms = 0;  // from now; 0: none (the server gives unary calls one of its own)
  // "uccp-consistency", "uccp-request-id", "x-request-id", "traceparent", ...
  Metadata metadata;
  // If set, filled with the initial and trailing metadata of the answer ("uccp-session", "x-request-id") when a unary
  // call returns. Not used by streams, see ClientStream::headers().
  Metadata* response_headers = nullptr;
};

// One call with messages in both directions, for one reader and one writer thread. Unary and one-way streams too.
class ClientStream {
 public:
  virtual ~ClientStream() = default;  // cancels if not finished; does not block on the server
  // Blocks while 1 MiB waits to be sent. False: the call has ended, see finish().
  virtual bool write(std::string message) = 0;
  // No more writes. Idempotent.
  virtual void half_close() = 0;
  // Blocks for the next message; nullopt: the call has ended, see finish().
  virtual std::optional<std::string> read() = 0;
  // The same with a limit; nullopt with *timed_out set: nothing came, the stream goes on.
  virtual std::optional<std::string> read_for(std::chrono::milliseconds limit, bool* timed_out) = 0;
  // Ends the call from any thread; blocked readers and writers return.
  virtual void cancel() = 0;
  // Half-closes, drops unread messages, blocks for the outcome. Idempotent.
  virtual Status finish() = 0;
  // Initial and trailing metadata, as far as received.
  virtual Metadata headers() const = 0;
};

// Callbacks come one at a time, from a thread of gRPC; they must not block. They may use the stream.
struct StreamCallbacks {
  // The next message is read when this returns.
  std::move_only_function<void(std::string message)> on_message;
  // The outcome, exactly once, last.
  std::move_only_function<void(Status status)> on_done;
  // queued_bytes() fell below 64 KiB after it was above. May be empty.
  std::move_only_function<void()> on_drain;
};

// The same without blocking. Dropping the last reference outside does not end the call; cancel() does.
class AsyncStream {
 public:
  virtual ~AsyncStream() = default;
  // Queues a message, in order. False: the call has ended or was half-closed, or 64 MiB wait (the call is then
  // cancelled with exhausted SEND_QUEUE_FULL). Callable from any thread, never calls back inside.
  virtual bool send(std::string message) = 0;
  virtual size_t queued_bytes() const = 0;
  virtual void half_close() = 0;
  virtual void cancel() = 0;
  // As ClientStream::headers().
  virtual Metadata headers() const = 0;
};

class GrpcChannel {
 public:
  // Checks the options; connects at the first call and again whenever needed. Never blocks on the network.
  // Errors: invalid CHANNEL_OPTIONS_INVALID.
  static Result<std::unique_ptr<GrpcChannel>> connect(ChannelOptions options);
  virtual ~GrpcChannel() = default;

  // Blocks for the answer. Errors: those of the method; unavailable CONNECT_REFUSED, CONNECT_TIMEOUT, TLS_FAILED or
  // CONNECT_FAILED (nothing was sent; the message says what to check); unavailable CONNECTION_LOST of a read;
  // outcome_unknown REPLY_LOST of a change; deadline DEADLINE_EXCEEDED.
  virtual Result<std::string> unary(std::string_view method, std::string request, const CallOptions& options = {}) = 0;
  // The same without blocking: `done` is called once, by a thread of gRPC, and must not block.
  using UnaryDone = std::move_only_function<void(Result<std::string>)>;
  virtual void unary_async(std::string_view method, std::string request, UnaryDone done,
                           const CallOptions& options = {}) = 0;
  // Its blocking methods are not for callbacks of gRPC. Errors come from finish().
  virtual std::unique_ptr<ClientStream> stream(std::string_view method, const CallOptions& options = {}) = 0;
  // on_done is called even if the connection never comes up.
  virtual std::shared_ptr<AsyncStream> stream_async(std::string_view method, StreamCallbacks callbacks,
                                                    const CallOptions& options = {}) = 0;
  // Waits until the connection is up. Errors: as unary().
  virtual Status wait_ready(int64_t timeout_ms) = 0;
  // Replaces the bearer token for later calls.
  virtual void set_bearer_token(std::string token) = 0;
  virtual const std::string& target() const = 0;
};

}  // namespace uccp::doors
