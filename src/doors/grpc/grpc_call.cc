#include "doors/grpc/grpc_call.h"

#include <grpc/grpc_security_constants.h>

#include <algorithm>
#include <array>
#include <chrono>

#include "call/contract.h"
#include "call/error_json.h"
#include "doors/grpc_client/byte_buffer.h"

namespace uccp::doors {
namespace {

std::string_view view(grpc::string_ref text) { return {text.data(), text.size()}; }

// "ipv4:127.0.0.1:4711" or "ipv6:%5B::1%5D:4711" as "127.0.0.1:4711" or "[::1]:4711".
std::string plain_address(std::string peer) {
  if (peer.starts_with("ipv4:") || peer.starts_with("ipv6:")) peer.erase(0, 5);
  for (const auto& [code, c] : {std::pair("%5B", "["), std::pair("%5D", "]")}) {
    if (const size_t at = peer.find(code); at != std::string::npos) peer.replace(at, 3, c);
  }
  return peer;
}

}  // namespace

grpc::Status to_grpc_status(const Status& status) {
  if (status.is_ok()) return grpc::Status::OK;
  // Trailers are 4/3 larger on the wire (base64), and clients refuse more than 8 KiB of them.
  constexpr size_t kDetailsMax = 4500;
  constexpr size_t kMessageMax = 1000;
  const auto code = static_cast<grpc::StatusCode>(code_info(status.code()).grpc);
  std::string details = call::to_rpc_status(status);
  std::string message = status.message();
  if (message.size() > kMessageMax) {
    size_t end = kMessageMax;
    while (end > 0 && (message[end] & 0xc0) == 0x80) --end;
    message.resize(end);
  }
  for (size_t kept = status.detail().fields.size(); details.size() > kDetailsMax;) {
    Status smaller(status.code(), status.reason(), message);
    for (size_t i = 0; i < kept; ++i) {
      const FieldViolation& field = status.detail().fields[i];
      smaller = std::move(smaller).with_field(field.field, field.description.substr(0, 200));
    }
    if (status.detail().retry_after_ms > 0) smaller = std::move(smaller).with_retry_after_ms(status.detail().retry_after_ms);
    details = call::to_rpc_status(smaller);
    if (kept == 0) break;
    kept /= 2;
  }
  return {code, message, details};
}

GrpcCall* GrpcCall::start(const GrpcCallContextPtr& door, grpc::GenericCallbackServerContext* context) {
  auto self = std::make_shared<GrpcCall>(door);
  self->self_ = self;
  door->calls.opened();
  self->begin(context);
  return self.get();
}

void GrpcCall::begin(grpc::GenericCallbackServerContext* context) {
  const OnDoorThread mark;
  context_ = context;
  method_name_ = context->method();
  call_ = std::make_shared<call::Call>();
  call_->door = call::Call::Door::kGrpc;
  call_->method = call::Contract::get().find(method_name_);
  call_->sink = self_;
  holds_messages_ = call_->method == nullptr || !call_->method->server_streaming;
  read_metadata(*context);
  if (call_->method == nullptr) return dispatch({});
  // Messages of a client stream are read when the handler has said where they go.
  if (streams_in()) dispatch({});
  StartRead(&read_buffer_);
}

void GrpcCall::read_metadata(const grpc::GenericCallbackServerContext& context) {
  call::Call& call = *call_;
  for (const auto& [name, value] : context.client_metadata()) {
    const std::string_view key = view(name);
    if (key == "authorization") {
      constexpr std::string_view kBearer = "Bearer ";
      const std::string_view text = view(value);
      if (text.size() > kBearer.size() && (text.starts_with(kBearer) || text.starts_with("bearer "))) {
        call.credentials.bearer_token = text.substr(kBearer.size());
      }
    } else if (key == "uccp-consistency") {
      call.consistency = view(value);
    } else if (key == "x-request-id") {
      call.call_id = view(value);
    } else if (key == "traceparent") {
      call.traceparent = view(value);
    } else if (key == "uccp-request-id" || key == "idempotency-key") {
      call.request_id = view(value);
    } else if (key == "uccp-namespace") {
      call.default_namespace = view(value);
    }
  }
  call.credentials.address = plain_address(context.peer());
  if (const auto auth = context.auth_context()) {
    const auto certificates = auth->FindPropertyValues(GRPC_X509_PEM_CERT_PROPERTY_NAME);
    if (!certificates.empty() && auth->IsPeerAuthenticated()) {
      call.credentials.certificate_pem = view(certificates.front());
    }
  }
  const auto deadline = context.deadline();
  if (deadline != std::chrono::system_clock::time_point::max()) {
    const auto left = std::chrono::duration_cast<std::chrono::microseconds>(deadline - std::chrono::system_clock::now());
    call.deadline = client_deadline_ = BootTime{door_->clock.boot().us + left.count()};
  }
}

void GrpcCall::dispatch(std::string request) {
  {
    std::lock_guard lock(mutex_);
    if (cancelled_) return;
    phase_ = Phase::kDispatching;
  }
  const bool watched = !call_->deadline;
  door_->pipeline.dispatch(call_, std::move(request), method_name_);
  // The pipeline gave it a deadline that gRPC knows nothing of.
  if (watched && call_->deadline && !call_->finished()) place_ = door_->calls.watch(call_, *call_->deadline);
  {
    std::lock_guard lock(mutex_);
    phase_ = Phase::kDispatched;
    if (!cancelled_) return;
  }
  end_cancelled();
}

void GrpcCall::OnReadDone(bool ok) {
  const OnDoorThread mark;
  if (!ok) {
    if (streams_in()) return call_->deliver_half_close();
    bool is_new = false;
    {
      std::lock_guard lock(mutex_);
      is_new = phase_ == Phase::kNew;
    }
    if (is_new) {
      call_->finish(Status(Code::kInvalid, "REQUEST_MISSING", "the client sent no request message, or one too large"));
    }
    return;
  }
  if (!streams_in()) return dispatch(to_string(read_buffer_));
  call_->deliver_message(to_string(read_buffer_));
  // Only now: the client is held back by flow control while the handler is at work.
  std::lock_guard lock(mutex_);
  if (!finish_started_) StartRead(&read_buffer_);
}

void GrpcCall::send(std::string message) {
  call::CallPtr overflowing;
  {
    std::lock_guard lock(mutex_);
    if (done_ || broken_ || outcome_ || overflow_) return;
    if (queued_bytes_ + message.size() > kQueueBytesMax) {
      overflow_ = true;
      overflowing = call_;
    } else {
      queued_bytes_ += message.size();
      queue_.push_back(std::move(message));
    }
  }
  if (overflowing == nullptr) return holds_messages_ ? void() : poke();
  // Whoever sends may hold locks of its own, so the call is ended by another thread.
  auto end = [call = std::move(overflowing)] {
    call->deliver_cancel();
    call->finish(Status(Code::kExhausted, "STREAM_TOO_SLOW",
                        "32 MiB wait for this client, which does not read them; resume from the last cursor"));
  };
  door_->replies.empty() ? end() : door_->replies.post(reinterpret_cast<size_t>(this) >> 6, std::move(end));
}

void GrpcCall::finish(Status status) {
  {
    std::lock_guard lock(mutex_);
    if (done_ || outcome_) return;
    outcome_ = to_grpc_status(status);
    if (overflow_ || !status.is_ok()) {
      // What waits is worth nothing to a client that reads too slowly, and an error needs no answer beside it.
      if (overflow_ || holds_messages_) {
        queue_.clear();
        queued_bytes_ = writing_bytes_;
      }
    }
  }
  poke();
}

size_t GrpcCall::queued_bytes() const {
  std::lock_guard lock(mutex_);
  return queued_bytes_;
}

void GrpcCall::poke() {
  std::unique_lock lock(mutex_);
  if (OnDoorThread::is_current() || door_->replies.empty()) return pump();
  if (poked_ || done_) return;
  poked_ = true;
  lock.unlock();
  door_->replies.post(reinterpret_cast<size_t>(this) >> 6, [self = shared_from_this()] {
    std::lock_guard again(self->mutex_);
    self->poked_ = false;
    self->pump();
  });
}

void GrpcCall::pump() {
  if (done_ || writing_ || finish_started_) return;
  if (queue_.empty() || broken_) {
    if (!outcome_) return;
    add_headers();
    finish_started_ = true;
    return Finish(*outcome_);
  }
  if (holds_messages_ && !outcome_) return;
  add_headers();
  writing_ = true;
  writing_bytes_ = queue_.front().size();
  write_buffer_ = to_byte_buffer(std::move(queue_.front()));
  queue_.pop_front();
  if (outcome_ && queue_.empty()) {
    finish_started_ = true;
    return StartWriteAndFinish(&write_buffer_, grpc::WriteOptions(), *outcome_);
  }
  StartWrite(&write_buffer_);
}

void GrpcCall::add_headers() {
  if (headers_added_) return;
  headers_added_ = true;
  if (!call_->call_id.empty()) context_->AddInitialMetadata("x-request-id", call_->call_id);
  for (auto& [name, value] : call_->headers()) {
    std::string lower(name);
    std::ranges::transform(lower, lower.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    context_->AddInitialMetadata(lower, value);
  }
}

void GrpcCall::OnWriteDone(bool ok) {
  const OnDoorThread mark;
  bool drained = false;
  {
    std::lock_guard lock(mutex_);
    writing_ = false;
    const bool was_full = queued_bytes_ > kDrainedBytes;
    queued_bytes_ -= std::min(queued_bytes_, writing_bytes_);
    writing_bytes_ = 0;
    if (!ok) {
      broken_ = true;
      queue_.clear();
      queued_bytes_ = 0;
    }
    pump();
    drained = ok && !outcome_ && (queued_bytes_ == 0 || (was_full && queued_bytes_ <= kDrainedBytes));
  }
  if (drained) drain();
}

void GrpcCall::drain() {
  // A handler that sends inside its callback lets the next write end on another thread: that drain must not get lost.
  {
    std::lock_guard lock(mutex_);
    drain_again_ = true;
    if (draining_) return;
    draining_ = true;
  }
  while (true) {
    {
      std::lock_guard lock(mutex_);
      if (!drain_again_) {
        draining_ = false;
        return;
      }
      drain_again_ = false;
    }
    call_->deliver_drain();
  }
}

void GrpcCall::OnCancel() {
  const OnDoorThread mark;
  {
    std::lock_guard lock(mutex_);
    cancelled_ = true;
    if (phase_ == Phase::kDispatching) return;
  }
  end_cancelled();
}

void GrpcCall::end_cancelled() {
  const bool late = client_deadline_ && *client_deadline_ <= door_->clock.boot();
  call_->deliver_cancel();
  call_->finish(late ? Status(Code::kDeadline, "DEADLINE_EXCEEDED", "the deadline passed before the answer was there")
                     : Status(Code::kCancelled, "CANCELLED", "the client cancelled the call or went away"));
}

void GrpcCall::OnDone() {
  door_->calls.unwatch(place_);
  door_->calls.closed();
  // Outside of the lock: these may be the last references.
  std::shared_ptr<GrpcCall> self;
  call::CallPtr call;
  std::lock_guard lock(mutex_);
  done_ = true;
  context_ = nullptr;
  queue_.clear();
  call = std::move(call_);
  self = std::move(self_);
}

}  // namespace uccp::doors
