// BidiCall: one call with messages in both directions, over the callback API of gRPC. Private to the client channel.
//
// Invariants: at most one read and one write are outstanding; while `ended_` is false a hold keeps the reactor alive,
// so operations may be started from any thread under `mutex_`; user callbacks run one at a time, without `mutex_`.
// Lifetime: `self_` keeps the object until OnDone.
#pragma once

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <deque>
#include <memory>
#include <mutex>
#include <string>

#include "doors/grpc_client/channel.h"

namespace uccp::doors {

// Fills metadata and deadline of a call.
void set_up(grpc::ClientContext& context, const CallOptions& options, const std::string& bearer_token);
// Initial and trailing metadata. Requires: the call is done.
Metadata collect_headers(const grpc::ClientContext& context);

class BidiCall final : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>,
                       public AsyncStream,
                       public std::enable_shared_from_this<BidiCall> {
 public:
  struct Hooks {
    // Returns whether the next message shall be read; if not, resume_reading() asks for it.
    std::move_only_function<bool(std::string)> on_message;
    std::move_only_function<void(Status)> on_done;
    std::move_only_function<void()> on_drain;
  };
  static constexpr size_t kQueueBytesMax = 64u << 20;
  static constexpr size_t kDrainedBytes = 64u << 10;

  BidiCall(std::string method, std::string target, Hooks hooks)
      : method_(std::move(method)), target_(std::move(target)), hooks_(std::move(hooks)) {}

  void start(grpc::GenericStub& stub, const CallOptions& options, const std::string& bearer_token);
  void resume_reading();

  bool send(std::string message) override;
  size_t queued_bytes() const override;
  void half_close() override;
  void cancel() override;
  Metadata headers() const override;

 private:
  void OnReadInitialMetadataDone(bool ok) override;
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;
  void write_next();  // with mutex_

  const std::string method_;
  const std::string target_;
  grpc::ClientContext context_;
  std::mutex callback_mutex_;
  Hooks hooks_;  // with callback_mutex_

  mutable std::mutex mutex_;
  std::shared_ptr<BidiCall> self_;
  std::deque<std::string> queue_;
  size_t queued_bytes_ = 0;  // the message being written included
  size_t writing_bytes_ = 0;
  grpc::ByteBuffer write_buffer_;
  grpc::ByteBuffer read_buffer_;
  bool writing_ = false;
  bool reading_ = false;
  bool half_close_wanted_ = false;
  bool half_closed_ = false;
  bool broken_ = false;  // writes fail from now on
  bool ended_ = false;   // the hold was given back: nothing may be started
  bool overflow_ = false;
  Metadata headers_;
};

}  // namespace uccp::doors
