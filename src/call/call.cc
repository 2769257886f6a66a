#include "call/call.h"

#include <utility>

namespace uccp::call {

std::string_view MessageRun::message(size_t number) const {
  if (ends.empty()) return bytes;
  const size_t begin = number == 0 ? 0 : ends[number - 1];
  return std::string_view(bytes).substr(begin, ends[number] - begin);
}

void Sink::send_run(MessageRun run) {
  if (run.ends.empty()) return send(std::move(run.bytes));
  for (size_t number = 0; number < run.size(); ++number) send(std::string(run.message(number)));
}

void Call::finish(Status status) {
  if (finished_.exchange(true, std::memory_order_acq_rel)) return;
  std::move_only_function<void(Status&)> account;
  std::move_only_function<Status()> wait;
  OnMessage message;
  OnEvent half_close, cancel, drain;
  std::vector<std::shared_ptr<void>> kept;
  {
    // The callbacks often hold the call itself: taking them out here breaks those cycles.
    std::lock_guard lock(mutex_);
    account = std::move(on_finish_);
    wait = std::move(on_wait_);
    message = std::move(on_message_);
    half_close = std::move(on_half_close_);
    cancel = std::move(on_cancel_);
    drain = std::move(on_drain_);
    kept = std::move(kept_);
  }
  if (account) account(status);
  sink->finish(std::move(status));
}

void Call::set_header(std::string name, std::string value) {
  std::lock_guard lock(mutex_);
  headers_.emplace_back(std::move(name), std::move(value));
}

std::vector<std::pair<std::string, std::string>> Call::headers() const {
  std::lock_guard lock(mutex_);
  return headers_;
}

void Call::on_message(OnMessage callback) {
  std::vector<std::string> early;
  {
    std::lock_guard lock(mutex_);
    early = std::move(early_messages_);
    early_messages_.clear();
    if (early.empty()) {
      if (!finished()) on_message_ = std::move(callback);
      return;
    }
  }
  for (std::string& message : early) callback(std::move(message));
  std::lock_guard lock(mutex_);
  if (!finished()) on_message_ = std::move(callback);
}

void Call::on_half_close(OnEvent callback) {
  {
    std::lock_guard lock(mutex_);
    if (finished()) return;
    if (!half_closed_) {
      on_half_close_ = std::move(callback);
      return;
    }
  }
  callback();
}

void Call::on_cancel(OnEvent callback) {
  {
    // A callback that is kept after the end would hold the call, if it holds the call, for ever.
    std::lock_guard lock(mutex_);
    if (finished()) return;
    if (!cancelled_) {
      on_cancel_ = std::move(callback);
      return;
    }
  }
  callback();
}

void Call::on_drain(OnEvent callback) {
  std::lock_guard lock(mutex_);
  if (!finished()) on_drain_ = std::move(callback);
}

void Call::deliver_message(std::string message) {
  // The callback runs without the lock: it may finish the call.
  OnMessage callback;
  {
    std::lock_guard lock(mutex_);
    if (finished()) return;
    if (!on_message_) {
      early_messages_.push_back(std::move(message));
      return;
    }
    callback = std::move(on_message_);
  }
  callback(std::move(message));
  std::lock_guard lock(mutex_);
  if (!finished() && !on_message_) on_message_ = std::move(callback);
}

void Call::deliver_half_close() {
  OnEvent callback;
  {
    std::lock_guard lock(mutex_);
    half_closed_ = true;
    callback = std::move(on_half_close_);
  }
  if (callback) callback();
}

void Call::deliver_cancel() {
  OnEvent callback;
  {
    std::lock_guard lock(mutex_);
    cancelled_ = true;
    callback = std::move(on_cancel_);
  }
  if (callback) callback();
}

void Call::deliver_drain() {
  OnEvent callback;
  {
    std::lock_guard lock(mutex_);
    if (finished()) return;
    callback = std::move(on_drain_);
  }
  if (!callback) return;
  callback();
  std::lock_guard lock(mutex_);
  if (!finished() && !on_drain_) on_drain_ = std::move(callback);
}

void Call::on_finish(std::move_only_function<void(Status&)> callback) {
  std::lock_guard lock(mutex_);
  on_finish_ = std::move(callback);
}

void Call::on_wait(std::move_only_function<Status()> callback) {
  std::lock_guard lock(mutex_);
  on_wait_ = std::move(callback);
}

void Call::begin_waiting() {
  std::move_only_function<Status()> wait;
  {
    std::lock_guard lock(mutex_);
    wait = std::exchange(on_wait_, {});
  }
  if (finished()) return;
  Status status = wait ? wait() : Status::ok();
  if (status.is_ok()) return sink->waiting();
  // The handler cleans up as for a client that went away, and the client learns the reason.
  OnEvent cancel;
  {
    std::lock_guard lock(mutex_);
    cancelled_ = true;
    cancel = std::move(on_cancel_);
  }
  finish(std::move(status));
  if (cancel) cancel();
}

void Call::keep(std::shared_ptr<void> state) {
  std::lock_guard lock(mutex_);
  if (!finished()) kept_.push_back(std::move(state));
}

}  // namespace uccp::call
