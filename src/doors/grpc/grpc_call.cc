#include "doors/grpc/grpc_call.h"

#include <algorithm>
#include <cstring>

#include "base/limits.h"
#include "call/contract.h"
#include "doors/deadline.h"
#include "doors/grpc/grpc_connection.h"

namespace uccp::doors {

GrpcCall::GrpcCall(GrpcSharedPtr shared, IoLoopPtr loop, GrpcConnection& connection, int32_t stream)
    : shared_(std::move(shared)),
      loop_(std::move(loop)),
      stream_(stream),
      connection_(&connection),
      call_(std::make_shared<call::Call>()),
      // The pipeline's limit answers with a reason and details, after authentication; this is the wall behind it.
      reader_(2 * limits::kMessageBytesMax),
      opened_(shared_->clock.boot()) {
  call_->door = call::Call::Door::kGrpc;
}

// --- what the client sends ------------------------------------------------------------------------------------------

void GrpcCall::on_header(std::string_view name, std::string_view value) {
  header_bytes_ += name.size() + value.size() + 32;
  if (header_bytes_ > shared_->metadata_bytes_max) {
    refusal_ =
        Status(Code::kExhausted, "METADATA_TOO_LARGE",
               "the metadata of the call has more than " + std::to_string(shared_->metadata_bytes_max) + " bytes");
    return;
  }
  call::Call& call = *call_;
  if (name == ":path") {
    method_name_ = value;
  } else if (name == "content-type") {
    is_grpc_ = value.starts_with("application/grpc");
  } else if (name == "grpc-timeout") {
    const auto left = parse_timeout_us(value);
    if (left) call.deadline = BootTime{shared_->clock.boot().us + *left};
    else refusal_ = Status(Code::kInvalid, "TIMEOUT_MALFORMED", "grpc-timeout is a number and one of H, M, S, m, u, n");
  } else if (name == "grpc-encoding") {
    if (value == "gzip") reader_.set_encoding(MessageEncoding::kGzip);
    else if (value != "identity") {
      refusal_ = Status(Code::kUnimplemented, "ENCODING_UNKNOWN",
                        "messages may be compressed with gzip, not with '" + std::string(value.substr(0, 40)) + "'");
    }
  } else if (name == "authorization") {
    constexpr std::string_view kBearer = "Bearer ";
    if (value.size() > kBearer.size() && (value.starts_with(kBearer) || value.starts_with("bearer "))) {
      call.credentials.bearer_token = value.substr(kBearer.size());
    }
  } else if (name == "uccp-consistency") {
    call.consistency = value;
  } else if (name == "x-request-id") {
    call.call_id = value;
  } else if (name == "traceparent") {
    call.traceparent = value;
  } else if (name == "uccp-request-id" || name == "idempotency-key") {
    call.request_id = value;
  } else if (name == "uccp-dry-run") {
    call.dry_run = value == "true";
  } else if (name == "uccp-namespace") {
    call.default_namespace = value;
  }
}

void GrpcCall::on_headers_complete() {
  if (!is_grpc_) return connection_->refuse_media_type(*this);
  call_->sink = shared_from_this();
  if (refusal_) return call_->finish(std::move(*refusal_));
  if (const BuiltinHandler* handler = shared_->builtin.find(method_name_)) {
    builtin_ = begun_ = true;
    return (*handler)(call_);
  }
  if (!shared_->foreign.handlers.empty()) return begin_foreign();
  call_->method = call::Contract::get().find(method_name_);
  holds_messages_ = call_->method == nullptr || !call_->method->server_streaming;
  // Messages of a client stream go where the handler has said.
  if (call_->method != nullptr && !streams_in()) return;
  begun_ = true;
  connection_->identify(*call_);
  shared_->pipeline.dispatch(call_, {}, method_name_);
}

void GrpcCall::begin_foreign() {
  builtin_ = begun_ = true;
  const auto handler = shared_->foreign.handlers.find(method_name_);
  if (handler == shared_->foreign.handlers.end()) {
    return call_->finish(
        Status(Code::kUnimplemented, "METHOD_UNKNOWN", "this server does not have the method " + method_name_));
  }
  connection_->identify(*call_);
  handler->second(call_);
}

void GrpcCall::on_data(std::string_view bytes) {
  if (call_ == nullptr || call_->sink == nullptr || call_->finished()) return;
  // Held here: a handler may end the call, which may close the stream.
  const auto self = shared_from_this();
  Status status = reader_.feed(bytes, [this](std::string message) {
    take(std::move(message));
    return call_ != nullptr && !call_->finished();
  });
  if (!status.is_ok() && call_ != nullptr) call_->finish(std::move(status));
}

void GrpcCall::take(std::string message) {
  if (streams_in()) return call_->deliver_message(std::move(message));
  if (std::exchange(got_message_, true)) return;
  begun_ = true;
  if (call_->method != nullptr) {
    if (const auto refusal = shared_->pipeline.turn_away(*call_->method, call_->door, connection_->tenant_load())) {
      answering_ = true;
      call_ = nullptr;
      return connection_->refuse(*this, refusal);
    }
  }
  connection_->identify(*call_);
  const call::CallPtr call = call_;
  shared_->pipeline.dispatch(call, std::move(message), method_name_);
  if (connection_ != nullptr) connection_->note_caller(*call);
}

void GrpcCall::on_half_close() {
  if (call_ == nullptr || call_->sink == nullptr || call_->finished()) return;
  const call::CallPtr call = call_;
  if (streams_in()) return call->deliver_half_close();
  if (!got_message_) call->finish(Status(Code::kInvalid, "REQUEST_MISSING", "the client sent no request message"));
}

void GrpcCall::on_closed(Status why) {
  connection_ = nullptr;
  const call::CallPtr call = std::move(call_);
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    queue_.clear();
    message_ = filled_ = 0;
    queued_bytes_ = 0;
  }
  if (call == nullptr || call->sink == nullptr || call->finished()) return;
  call->deliver_cancel();
  call->finish(std::move(why));
}

void GrpcCall::expire(BootTime now) {
  const call::CallPtr call = call_;
  if (call == nullptr || call->finished()) return;
  if (begun_) {
    if (call->deadline && *call->deadline <= now) end_at_deadline(*call);
  } else if ((call->deadline && *call->deadline <= now) || now.ms_since(opened_) > kRequestMs) {
    end(Status(Code::kDeadline, "REQUEST_TIMEOUT", "the request message did not come in time"));
  }
}

void GrpcCall::end(Status status) {
  const call::CallPtr call = call_;
  if (call == nullptr || call->sink == nullptr || call->finished()) return;
  call->deliver_cancel();
  call->finish(std::move(status));
}

// --- what the handler sends -----------------------------------------------------------------------------------------

void GrpcCall::send_run(call::MessageRun run) {
  {
    std::lock_guard lock(mutex_);
    if (closed_ || outcome_ || overflow_) return;
    if (queued_bytes_ + run.bytes.size() > kQueueBytesMax) {
      overflow_ = true;
    } else {
      queued_bytes_ += run.bytes.size();
      drained_bytes_ = std::max(kDrainedBytes, queued_bytes_ / 2);
      queue_.push_back(std::move(run));
      // One answer leaves together with its outcome.
      if (holds_messages_) return;
    }
  }
  poke();
}

void GrpcCall::finish(Status status) {
  {
    std::lock_guard lock(mutex_);
    if (closed_ || outcome_) return;
    // What waits is worth nothing to a client that reads too slowly, and an error needs no answer beside it.
    if (overflow_ || (holds_messages_ && !status.is_ok())) drop_queue();
    outcome_ = std::move(status);
  }
  poke();
}

// But for a message of which a part was sent.
void GrpcCall::drop_queue() {
  std::string begun;
  if (filled_ > 0) begun = queue_.front().message(message_);
  queue_.clear();
  message_ = 0;
  queued_bytes_ = begun.size();
  if (filled_ > 0) queue_.push_back({std::move(begun), {}});
}

size_t GrpcCall::queued_bytes() const {
  std::lock_guard lock(mutex_);
  return queued_bytes_;
}

void GrpcCall::poke() {
  {
    std::lock_guard lock(mutex_);
    if (closed_ || std::exchange(poked_, true)) return;
  }
  loop_->post(shared_from_this());
}

void GrpcCall::work() {
  bool ended = false, has_message = false, overflow = false;
  {
    std::lock_guard lock(mutex_);
    poked_ = false;
    ended = outcome_.has_value();
    has_message = !queue_.empty();
    overflow = overflow_ && !ended;
  }
  if (connection_ == nullptr) return;
  if (overflow) {
    return end(Status(Code::kExhausted, "STREAM_TOO_SLOW",
                      "32 MiB wait for this client, which does not read them; resume from the last cursor"));
  }
  if (answering_) {
    if (has_message || ended) connection_->resume(*this);
  } else if (has_message && (ended || !holds_messages_)) {
    answering_ = true;
    connection_->answer(*this, headers());
  } else if (ended) {
    answering_ = true;
    GrpcHeaders all = headers();
    for (auto& header : trailers()) all.push_back(std::move(header));
    connection_->answer_without_message(*this, all);
  }
  if (std::exchange(drain_due_, false) && call_ != nullptr) {
    const call::CallPtr call = call_;
    call->deliver_drain();
  }
}

GrpcHeaders GrpcCall::headers() const {
  GrpcHeaders out;
  if (!call_->call_id.empty()) out.emplace_back("x-request-id", call_->call_id);
  for (auto& [name, value] : call_->headers()) {
    std::ranges::transform(name, name.begin(),
                           [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    out.emplace_back(std::move(name), std::move(value));
  }
  return out;
}

GrpcHeaders GrpcCall::trailers() const {
  GrpcHeaders out;
  std::lock_guard lock(mutex_);
  const Status status = outcome_.value_or(Status::ok());
  if (shared_->foreign.error == nullptr) {
    add_status(out, status);
  } else {
    const ForeignApi::Error error = shared_->foreign.error(status);
    add_plain_status(out, error.grpc_code, error.text);
  }
  return out;
}

GrpcCall::Filled GrpcCall::fill(std::string& to, size_t size) {
  Filled filled;
  std::lock_guard lock(mutex_);
  const bool was_full = queued_bytes_ > drained_bytes_;
  while (!queue_.empty() && filled.bytes < size) {
    const std::string_view message = queue_.front().message(message_);
    if (filled_ < kMessageHeadBytes) {
      uint8_t head[kMessageHeadBytes];
      put_message_head(head, message.size());
      const size_t taken = std::min(kMessageHeadBytes - filled_, size - filled.bytes);
      to.append(reinterpret_cast<const char*>(head) + filled_, taken);
      filled_ += taken;
      filled.bytes += taken;
      if (filled_ < kMessageHeadBytes) break;
    }
    const size_t at = filled_ - kMessageHeadBytes;
    const size_t taken = std::min(message.size() - at, size - filled.bytes);
    to.append(message.substr(at, taken));
    filled_ += taken;
    filled.bytes += taken;
    if (filled_ < kMessageHeadBytes + message.size()) break;
    queued_bytes_ -= std::min(queued_bytes_, message.size());
    filled_ = 0;
    if (++message_ < queue_.front().size()) continue;
    queue_.pop_front();
    message_ = 0;
  }
  filled.end = queue_.empty() && outcome_.has_value();
  const bool drained =
      !outcome_ && filled.bytes > 0 && (queue_.empty() || (was_full && queued_bytes_ <= drained_bytes_));
  if (drained) {
    // The handler is told in the next turn, when the connection is not at work.
    drain_due_ = true;
    if (!std::exchange(poked_, true)) loop_->post(shared_from_this());
  }
  return filled;
}

}  // namespace uccp::doors
