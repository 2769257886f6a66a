// GrpcCall: one stream of a connection on one side and the sink of a Call on the other. Private to the gRPC door.
//
// Invariants: everything that touches the connection runs on its loop; send() and finish() only queue, from any thread,
// and leave the call with the loop. Handlers are called without `mutex_`.
// Lifetime: the connection keeps the object while the stream is open; after that the handler's Call may keep it, as a
// closed sink.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "call/pipeline/pipeline.h"
#include "doors/foreign_api.h"
#include "doors/grpc/builtin_call.h"
#include "doors/grpc/grpc_wire.h"
#include "doors/grpc/io_loop.h"

namespace uccp::doors {

class GrpcConnection;

// What all calls of a door share. Outlives the door as long as some handler holds a call.
struct GrpcShared {
  GrpcShared(call::Pipeline& used_pipeline, const Clock& used_clock, size_t metadata_bytes, ForeignApi other_api)
      : pipeline(used_pipeline), clock(used_clock), metadata_bytes_max(metadata_bytes), foreign(std::move(other_api)) {}

  call::Pipeline& pipeline;
  const Clock& clock;
  const size_t metadata_bytes_max;
  BuiltinCalls builtin;
  const ForeignApi foreign;
  std::atomic<size_t> calls{0};
  std::atomic<size_t> connections{0};
};
using GrpcSharedPtr = std::shared_ptr<GrpcShared>;

class GrpcCall final : public call::Sink, public IoWork, public std::enable_shared_from_this<GrpcCall> {
 public:
  // A handler that ignores back-pressure loses its call here: exhausted STREAM_TOO_SLOW.
  static constexpr size_t kQueueBytesMax = 32u << 20;
  // on_drain comes when the queue falls to half of what it had, or to this if that is more, and when it is empty.
  static constexpr size_t kDrainedBytes = 64u << 10;
  // How long a client may take to send the one message of a call.
  static constexpr int64_t kRequestMs = 30'000;

  GrpcCall(GrpcSharedPtr shared, IoLoopPtr loop, GrpcConnection& connection, int32_t stream);

  // The sink, for any thread.
  void send(std::string message) override { send_run({std::move(message), {}}); }
  void send_run(call::MessageRun run) override;
  void finish(Status status) override;
  size_t queued_bytes() const override;

  // For the connection. -----------------------------------------------------------------------------------------------
  int32_t stream() const { return stream_; }
  void on_header(std::string_view name, std::string_view value);
  void on_headers_complete();
  void on_data(std::string_view bytes);
  void on_half_close();
  // The stream is gone; `why` for a call that has not ended.
  void on_closed(Status why);
  void expire(BootTime now);
  // Ends a call that is at work.
  void end(Status status);
  size_t held_bytes() const { return reader_.held_bytes(); }

  // The next bytes of the answer: how many, and whether they are the last ones.
  struct Filled {
    size_t bytes = 0;
    bool end = false;
  };
  // Appends them to `to`.
  Filled fill(std::string& to, size_t size);
  GrpcHeaders trailers() const;

  // On the loop: passes on what was queued.
  void work() override;

 private:
  void begin();
  void begin_foreign();
  void take(std::string message);
  void drop_queue();
  void poke();
  GrpcHeaders headers() const;
  bool streams_in() const { return builtin_ || (call_->method != nullptr && call_->method->client_streaming); }

  const GrpcSharedPtr shared_;
  const IoLoopPtr loop_;
  const int32_t stream_;

  // Of the loop.
  GrpcConnection* connection_;  // null when the stream is gone
  call::CallPtr call_;          // dropped when the stream is gone
  MessageReader reader_;
  std::string method_name_;
  std::optional<Status> refusal_;  // of what the headers say
  const BootTime opened_;
  size_t header_bytes_ = 0;
  bool is_grpc_ = false;
  bool builtin_ = false;  // its handler takes the messages, without the pipeline
  bool begun_ = false;    // the pipeline has the call
  bool got_message_ = false;
  bool holds_messages_ = false;  // one answer, sent together with the status
  bool answering_ = false;
  bool drain_due_ = false;

  mutable std::mutex mutex_;
  std::deque<call::MessageRun> queue_;
  size_t message_ = 0;  // of the first run in the queue: the one that is being sent
  size_t filled_ = 0;   // of that message, its head included
  size_t queued_bytes_ = 0;
  size_t drained_bytes_ = kDrainedBytes;  // on_drain comes when the queue falls to this
  std::optional<Status> outcome_;
  bool closed_ = false;
  bool overflow_ = false;
  bool poked_ = false;
};

using GrpcCallPtr = std::shared_ptr<GrpcCall>;

}  // namespace uccp::doors
