// Call: what every request becomes, whatever door it entered by.
//
// A door makes a Call and hands it to the pipeline; the pipeline runs the stages and the handler; the answers go back
// through the Call's sink. Messages are serialized protobuf bytes on both sides, so that doors need no generated types.
//
// Threads: send() and finish() may be called from any thread, once the handler has the call. The callbacks for incoming
// messages come one at a time, from a thread of the door.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "call/principal.h"
#include "machine/read_level.h"

namespace uccp {
class SecretKey;
}

namespace uccp::call {

struct Method;

// Messages one behind the other in one string.
struct MessageRun {
  std::string bytes;
  std::vector<uint32_t> ends;  // where each of them ends in `bytes`; none: all of it is one message

  size_t size() const { return ends.empty() ? 1 : ends.size(); }
  std::string_view message(size_t number) const;
};

// The way back to the client, implemented by each door. Callable from any thread.
class Sink {
 public:
  virtual ~Sink() = default;
  // Queues one response message. Order is kept.
  virtual void send(std::string message) = 0;
  // The same for several messages.
  virtual void send_run(MessageRun run);
  // Ends the call. Nothing is sent afterwards; the first call wins.
  virtual void finish(Status status) = 0;
  // Bytes queued and not yet taken by the transport: back-pressure for long streams.
  virtual size_t queued_bytes() const = 0;
  // The call has been parked: it costs nothing until something happens. May be told more than once.
  virtual void waiting() {}
};

// What a door knows about the client before the pipeline ran.
struct Credentials {
  std::string bearer_token;     // of "Authorization: Bearer", or empty
  std::string certificate_pem;  // verified client certificate, or empty
  std::string address;          // peer address, for logs, audit and limits
};

// The tightest request rate that a call was counted against.
struct RateState {
  int64_t limit = 0;      // calls a second; 0: none was
  int64_t remaining = 0;  // calls that may follow at once
  int64_t reset_s = 0;    // seconds until the allowance is whole again
};

// The unary calls of users of one tenant that are at work on this node.
struct TenantLoad {
  std::atomic<int64_t> working{0};
};

class Call : public std::enable_shared_from_this<Call> {
 public:
  enum class Door : uint8_t { kGrpc, kRest, kEtcd, kInternal };

  // Set by the door. -----------------------------------------------------------------------------------------------
  Door door = Door::kInternal;
  const Method* method = nullptr;
  Credentials credentials;
  std::string call_id;      // X-Request-Id: given by the client or made by the pipeline; for logs only
  std::string traceparent;  // W3C trace context, or empty
  std::optional<BootTime> deadline;
  std::string consistency;        // the read level as text, empty: the method's default
  std::string default_namespace;  // from the door, when the request names none
  bool dry_run = false;           // check the change and do not make it: call/dry_run.h
  uint64_t policy_revision = 0;   // of the policies by which it was allowed
  std::string request_id;         // Idempotency-Key; wins over an empty request_id field
  std::shared_ptr<Sink> sink;

  // Set by the pipeline. -------------------------------------------------------------------------------------------
  Principal principal;
  machine::ReadLevel read_level;
  std::string name_space;  // of the resource
  std::string resource;    // the resource named in the request, for policy and audit
  BootTime started;
  RateState rate;
  std::shared_ptr<TenantLoad> tenant_load;  // that it is counted in; null: in none
  // Of the cluster, for what is stored about requests with secret fields; outlives the call. Null: there is none.
  const SecretKey* hash_key = nullptr;

  // For the handler. -----------------------------------------------------------------------------------------------
  void send(std::string message) { sink->send(std::move(message)); }
  void send_run(MessageRun run) { sink->send_run(std::move(run)); }
  // Ends the call; the pipeline's accounting runs first. Later calls do nothing.
  void finish(Status status);
  // A unary answer.
  void reply(std::string message) {
    send(std::move(message));
    finish(Status::ok());
  }
  // The handler has parked the call until something happens: from now on it does not count as work in flight. Where too
  // many calls wait, it is ended with exhausted WAITS_EXHAUSTED as if its client had cancelled it. After on_cancel().
  void begin_waiting();
  bool finished() const { return finished_.load(std::memory_order_acquire); }
  // Metadata sent with the answer (Uccp-Session, ETag, ...). Before the first send.
  void set_header(std::string name, std::string value);
  std::vector<std::pair<std::string, std::string>> headers() const;

  // Client streams: the handler sets these before it returns. Messages that came before are delivered then.
  using OnMessage = std::move_only_function<void(std::string message)>;
  using OnEvent = std::move_only_function<void()>;
  void on_message(OnMessage callback);
  void on_half_close(OnEvent callback);
  // The client went away or the deadline passed. Called at most once, also if it happened before.
  void on_cancel(OnEvent callback);
  // The sink's queue became small again after it was above the limit.
  void on_drain(OnEvent callback);

  // For the door. ----------------------------------------------------------------------------------------------------
  void deliver_message(std::string message);
  void deliver_half_close();
  void deliver_cancel();
  void deliver_drain();

  // For the pipeline: runs when the call is parked, at most once; an error ends the call.
  void on_wait(std::move_only_function<Status()> callback);
  // For the pipeline: runs once, before the sink learns the outcome. May replace the status.
  void on_finish(std::move_only_function<void(Status&)> callback);
  // Hands the call to a thread-safe holder of per-stream state of the handler, released when the call ends.
  void keep(std::shared_ptr<void> state);

 private:
  mutable std::mutex mutex_;
  std::atomic<bool> finished_{false};
  bool cancelled_ = false;
  bool half_closed_ = false;
  std::vector<std::string> early_messages_;
  std::vector<std::pair<std::string, std::string>> headers_;
  OnMessage on_message_;
  OnEvent on_half_close_;
  OnEvent on_cancel_;
  OnEvent on_drain_;
  std::move_only_function<void(Status&)> on_finish_;
  std::move_only_function<Status()> on_wait_;
  std::vector<std::shared_ptr<void>> kept_;
};

using CallPtr = std::shared_ptr<Call>;

}  // namespace uccp::call
