#include "doors/grpc_client/blocking_stream.h"

#include <condition_variable>

namespace uccp::doors {
namespace {

// Messages and outcome on their way from gRPC's threads to the caller's. Outlives the stream object, as the call may.
struct Inbox {
  // Reading pauses while one of these is reached: the server is held back by HTTP/2 flow control.
  static constexpr size_t kMessagesMax = 64;
  static constexpr size_t kBytesMax = 1u << 20;

  bool full() const { return messages.size() >= kMessagesMax || bytes >= kBytesMax; }

  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::string> messages;
  size_t bytes = 0;
  bool dropping = false;
  std::optional<Status> outcome;
};

class BlockingStream final : public ClientStream {
 public:
  static constexpr size_t kWriteBytesMax = 1u << 20;

  BlockingStream(grpc::GenericStub& stub, std::string method, std::string target, const CallOptions& options,
                 const std::string& bearer_token)
      : inbox_(std::make_shared<Inbox>()) {
    BidiCall::Hooks hooks;
    hooks.on_message = [inbox = inbox_](std::string message) {
      std::lock_guard lock(inbox->mutex);
      if (inbox->dropping) return true;
      inbox->bytes += message.size();
      inbox->messages.push_back(std::move(message));
      inbox->changed.notify_all();
      return !inbox->full();
    };
    hooks.on_done = [inbox = inbox_](Status status) {
      std::lock_guard lock(inbox->mutex);
      inbox->outcome = std::move(status);
      inbox->changed.notify_all();
    };
    hooks.on_drain = [inbox = inbox_] {
      std::lock_guard lock(inbox->mutex);
      inbox->changed.notify_all();
    };
    call_ = std::make_shared<BidiCall>(std::move(method), std::move(target), std::move(hooks));
    call_->start(stub, options, bearer_token);
  }

  ~BlockingStream() override {
    {
      std::lock_guard lock(inbox_->mutex);
      if (inbox_->outcome) return;
      inbox_->dropping = true;
    }
    call_->cancel();
  }

  bool write(std::string message) override {
    {
      std::unique_lock lock(inbox_->mutex);
      inbox_->changed.wait(lock, [&] { return inbox_->outcome || call_->queued_bytes() < kWriteBytesMax; });
      if (inbox_->outcome) return false;
    }
    return call_->send(std::move(message));
  }

  void half_close() override { call_->half_close(); }

  std::optional<std::string> read() override { return take(std::nullopt, nullptr); }
  std::optional<std::string> read_for(std::chrono::milliseconds limit, bool* timed_out) override {
    return take(std::chrono::steady_clock::now() + limit, timed_out);
  }

  void cancel() override { call_->cancel(); }

  Status finish() override {
    call_->half_close();
    {
      std::lock_guard lock(inbox_->mutex);
      inbox_->dropping = true;
      inbox_->messages.clear();
      inbox_->bytes = 0;
    }
    call_->resume_reading();
    std::unique_lock lock(inbox_->mutex);
    inbox_->changed.wait(lock, [&] { return inbox_->outcome.has_value(); });
    return *inbox_->outcome;
  }

  Metadata headers() const override { return call_->headers(); }

 private:
  std::optional<std::string> take(std::optional<std::chrono::steady_clock::time_point> until, bool* timed_out) {
    if (timed_out != nullptr) *timed_out = false;
    const auto ready = [&] { return !inbox_->messages.empty() || inbox_->outcome; };
    std::unique_lock lock(inbox_->mutex);
    if (!until) {
      inbox_->changed.wait(lock, ready);
    } else if (!inbox_->changed.wait_until(lock, *until, ready)) {
      if (timed_out != nullptr) *timed_out = true;
      return std::nullopt;
    }
    if (inbox_->messages.empty()) return std::nullopt;
    const bool was_full = inbox_->full();
    std::string message = std::move(inbox_->messages.front());
    inbox_->messages.pop_front();
    inbox_->bytes -= message.size();
    const bool resume = was_full && !inbox_->full();
    lock.unlock();
    if (resume) call_->resume_reading();
    return message;
  }

  std::shared_ptr<Inbox> inbox_;
  std::shared_ptr<BidiCall> call_;
};

}  // namespace

std::unique_ptr<ClientStream> open_blocking_stream(grpc::GenericStub& stub, std::string method, std::string target,
                                                   const CallOptions& options, const std::string& bearer_token) {
  return std::make_unique<BlockingStream>(stub, std::move(method), std::move(target), options, bearer_token);
}

}  // namespace uccp::doors
