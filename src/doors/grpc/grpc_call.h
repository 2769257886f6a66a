// GrpcCall: one rpc as a reactor of gRPC on one side and the sink of a Call on the other. Private to the gRPC door.
//
// Invariants: at most one read and one write are outstanding; Finish is called exactly once; nothing touches `context_`
// after OnDone. Handlers are called without `mutex_`; gRPC's operations are started with it.
// Lifetime: `self_` keeps the object until OnDone; after that the handler's Call may keep it, as a closed sink.
#pragma once

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>

#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "call/pipeline/pipeline.h"
#include "doors/grpc/call_list.h"
#include "doors/grpc/reply_threads.h"

namespace uccp::doors {

// What all calls of a door share. Outlives the door as long as some handler holds a call.
struct GrpcCallContext {
  GrpcCallContext(call::Pipeline& used_pipeline, const Clock& used_clock, size_t reply_threads)
      : pipeline(used_pipeline), clock(used_clock), replies(reply_threads) {}

  call::Pipeline& pipeline;
  const Clock& clock;
  CallList calls;
  ReplyThreads replies;
};
using GrpcCallContextPtr = std::shared_ptr<GrpcCallContext>;

class GrpcCall final : public grpc::ServerGenericBidiReactor,
                       public call::Sink,
                       public std::enable_shared_from_this<GrpcCall> {
 public:
  // A handler that ignores back-pressure loses its call here: exhausted STREAM_TOO_SLOW.
  static constexpr size_t kQueueBytesMax = 32u << 20;
  // on_drain comes when the queue falls to this, and when it is empty.
  static constexpr size_t kDrainedBytes = 64u << 10;

  static GrpcCall* start(const GrpcCallContextPtr& door, grpc::GenericCallbackServerContext* context);
  explicit GrpcCall(GrpcCallContextPtr door) : door_(std::move(door)) {}

  void send(std::string message) override;
  void finish(Status status) override;
  size_t queued_bytes() const override;

 private:
  // A cancellation while the pipeline is taking the call waits until it has: the pipeline must see the end of each call.
  enum class Phase : uint8_t { kNew, kDispatching, kDispatched };

  void begin(grpc::GenericCallbackServerContext* context);
  void read_metadata(const grpc::GenericCallbackServerContext& context);
  void dispatch(std::string request);
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;
  void end_cancelled();

  void poke();          // pump(), here or on a reply thread
  void pump();          // with mutex_
  void add_headers();   // with mutex_
  void drain();
  bool streams_in() const { return call_->method != nullptr && call_->method->client_streaming; }

  const GrpcCallContextPtr door_;
  call::CallPtr call_;  // set at birth, dropped in OnDone
  std::string method_name_;
  std::optional<BootTime> client_deadline_;  // set at birth
  CallList::Place place_;
  grpc::ByteBuffer read_buffer_;

  mutable std::mutex mutex_;
  Phase phase_ = Phase::kNew;
  bool cancelled_ = false;
  std::shared_ptr<GrpcCall> self_;
  grpc::GenericCallbackServerContext* context_ = nullptr;
  std::deque<std::string> queue_;
  size_t queued_bytes_ = 0;    // the message being written included
  size_t writing_bytes_ = 0;
  grpc::ByteBuffer write_buffer_;
  std::optional<grpc::Status> outcome_;
  bool holds_messages_ = false;  // one answer, sent together with the status
  bool headers_added_ = false;
  bool writing_ = false;
  bool broken_ = false;          // the client is gone: writes fail
  bool finish_started_ = false;
  bool done_ = false;
  bool overflow_ = false;
  bool poked_ = false;
  bool draining_ = false;
  bool drain_again_ = false;
};

// `status` for gRPC, with details that fit into the 8 KiB of trailers that clients take.
grpc::Status to_grpc_status(const Status& status);

}  // namespace uccp::doors
