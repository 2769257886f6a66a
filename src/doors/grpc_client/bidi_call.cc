#include "doors/grpc_client/bidi_call.h"

#include "doors/grpc_client/byte_buffer.h"
#include "doors/grpc_client/errors.h"

namespace uccp::doors {

void set_up(grpc::ClientContext& context, const CallOptions& options, const std::string& bearer_token) {
  if (options.deadline_ms > 0) {
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(options.deadline_ms));
  }
  if (!bearer_token.empty()) context.AddMetadata("authorization", "Bearer " + bearer_token);
  for (const auto& [name, value] : options.metadata) context.AddMetadata(name, value);
}

namespace {
template <typename Map>
void append(const Map& from, Metadata& to) {
  for (const auto& [name, value] : from) {
    to.emplace_back(std::string(name.data(), name.size()), std::string(value.data(), value.size()));
  }
}
}  // namespace

Metadata collect_headers(const grpc::ClientContext& context) {
  Metadata all;
  append(context.GetServerInitialMetadata(), all);
  append(context.GetServerTrailingMetadata(), all);
  return all;
}

void BidiCall::start(grpc::GenericStub& stub, const CallOptions& options, const std::string& bearer_token) {
  self_ = shared_from_this();
  set_up(context_, options, bearer_token);
  stub.PrepareBidiStreamingCall(&context_, method_, {}, this);
  // For operations that are started outside of reactions; given back when reading ends.
  AddHold();
  reading_ = true;
  StartRead(&read_buffer_);
  StartCall();
}

bool BidiCall::send(std::string message) {
  {
    std::lock_guard lock(mutex_);
    if (ended_ || broken_ || half_close_wanted_) return false;
    if (queued_bytes_ + message.size() <= kQueueBytesMax) {
      queued_bytes_ += message.size();
      queue_.push_back(std::move(message));
      if (!writing_) write_next();
      return true;
    }
    overflow_ = true;
    broken_ = true;
  }
  cancel();
  return false;
}

void BidiCall::write_next() {
  if (ended_ || broken_) return;
  if (queue_.empty()) {
    if (half_close_wanted_ && !half_closed_) {
      half_closed_ = true;
      StartWritesDone();
    }
    return;
  }
  writing_ = true;
  writing_bytes_ = queue_.front().size();
  write_buffer_ = to_byte_buffer(std::move(queue_.front()));
  queue_.pop_front();
  StartWrite(&write_buffer_);
}

size_t BidiCall::queued_bytes() const {
  std::lock_guard lock(mutex_);
  return queued_bytes_;
}

void BidiCall::half_close() {
  std::lock_guard lock(mutex_);
  if (half_close_wanted_) return;
  half_close_wanted_ = true;
  if (!writing_) write_next();
}

void BidiCall::cancel() {
  context_.TryCancel();
  resume_reading();
}

void BidiCall::resume_reading() {
  std::lock_guard lock(mutex_);
  if (reading_ || ended_) return;
  reading_ = true;
  StartRead(&read_buffer_);
}

Metadata BidiCall::headers() const {
  std::lock_guard lock(mutex_);
  return headers_;
}

void BidiCall::OnReadInitialMetadataDone(bool ok) {
  if (!ok) return;
  std::lock_guard lock(mutex_);
  append(context_.GetServerInitialMetadata(), headers_);
}

void BidiCall::OnReadDone(bool ok) {
  if (!ok) {
    std::lock_guard lock(mutex_);
    ended_ = true;
    queue_.clear();
    queued_bytes_ = 0;
    RemoveHold();
    return;
  }
  {
    std::lock_guard lock(mutex_);
    reading_ = false;
  }
  bool more = false;
  {
    std::lock_guard lock(callback_mutex_);
    more = hooks_.on_message(to_string(read_buffer_));
  }
  if (more) resume_reading();
}

void BidiCall::OnWriteDone(bool ok) {
  bool drained = false;
  {
    std::lock_guard lock(mutex_);
    writing_ = false;
    const bool was_full = queued_bytes_ > kDrainedBytes;
    queued_bytes_ -= std::min(queued_bytes_, writing_bytes_);
    if (!ok) {
      broken_ = true;
      queue_.clear();
      queued_bytes_ = 0;
    }
    drained = ok && was_full && queued_bytes_ <= kDrainedBytes;
    write_next();
  }
  if (!drained) return;
  std::lock_guard lock(callback_mutex_);
  if (hooks_.on_drain) hooks_.on_drain();
}

void BidiCall::OnDone(const grpc::Status& status) {
  std::shared_ptr<BidiCall> self;
  Status outcome = from_grpc_status(status, method_, target_);
  {
    std::lock_guard lock(mutex_);
    self = std::move(self_);
    ended_ = true;
    headers_ = collect_headers(context_);
    if (overflow_) {
      outcome = Status(Code::kExhausted, "SEND_QUEUE_FULL",
                       "64 MiB wait to be sent to " + target_ + ", which does not take them; the call was cancelled");
    }
  }
  Hooks hooks;
  {
    std::lock_guard lock(callback_mutex_);
    hooks = std::move(hooks_);
  }
  if (hooks.on_done) hooks.on_done(std::move(outcome));
}

}  // namespace uccp::doors
