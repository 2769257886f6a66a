#include "agent/grpc_link.h"

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/proto_utils.h>

#include <algorithm>
#include <deque>
#include <mutex>

#include "agent/grpc_calls.h"
#include "base/log.h"

namespace uccp::agent {
namespace {

constexpr int kMessageBytesMax = 64 << 20;

}  // namespace

// One Connect call. Writes are queued; a hold keeps the call open for them until the reads have ended.
class GrpcLink::Stream final : public grpc::ClientBidiReactor<wire::AgentMessage, wire::ServerMessage> {
 public:
  Stream(GrpcLink& link, uint64_t number)
      : link_(link), loop_(link.loop_), alive_(link.alive_), number_(number), stub_(link.channel_) {}

  void start(std::shared_ptr<Stream> self) {
    self_ = std::move(self);
    stub_.PrepareBidiStreamingCall(&context_, "/uccp.internal.v1.AgentLink/Connect", {}, this);
    AddHold();
    StartRead(&incoming_);
    StartCall();
  }

  void send(wire::AgentMessage message) {
    std::lock_guard lock(mutex_);
    if (closed_) return;
    queued_bytes_ += message.ByteSizeLong();
    queue_.push_back(std::move(message));
    if (!std::exchange(writing_, true)) StartWrite(&queue_.front());
  }

  size_t queued_bytes() const {
    std::lock_guard lock(mutex_);
    return queued_bytes_;
  }

  void cancel() { context_.TryCancel(); }

  void OnWriteDone(bool ok) override {
    std::lock_guard lock(mutex_);
    const bool was_full = queued_bytes_ >= kLinkQueueBytes;
    queued_bytes_ -= queue_.front().ByteSizeLong();
    queue_.pop_front();
    if (!ok || closed_ || queue_.empty()) {
      writing_ = false;
    } else {
      StartWrite(&queue_.front());
    }
    if (ok && was_full && queued_bytes_ < kLinkQueueBytes) {
      post([](GrpcLink& link) { link.observer_->writable(); });
    }
  }

  void OnReadDone(bool ok) override {
    if (ok) {
      post([message = std::move(incoming_), number = number_](GrpcLink& link) mutable {
        link.on_message(number, std::move(message));
      });
      incoming_ = {};
      return StartRead(&incoming_);
    }
    {
      std::lock_guard lock(mutex_);
      closed_ = true;
    }
    RemoveHold();
  }

  void OnDone(const grpc::Status& status) override {
    post([why = status_from(status), number = number_](GrpcLink& link) { link.on_done(number, why); });
    // The last act: it may destroy this object.
    const auto self = std::move(self_);
  }

 private:
  template <typename Work>
  void post(Work work) {
    loop_.post([link = &link_, alive = alive_, number = number_, work = std::move(work)]() mutable {
      if (*alive && link->stream_number_ == number && link->observer_ != nullptr) work(*link);
    });
  }

  GrpcLink& link_;  // only on the loop, and only while *alive_
  Executor& loop_;
  const std::shared_ptr<bool> alive_;
  const uint64_t number_;
  grpc::TemplatedGenericStub<wire::AgentMessage, wire::ServerMessage> stub_;
  grpc::ClientContext context_;
  wire::ServerMessage incoming_;
  std::shared_ptr<Stream> self_;
  mutable std::mutex mutex_;
  std::deque<wire::AgentMessage> queue_;
  size_t queued_bytes_ = 0;
  bool writing_ = false;
  bool closed_ = false;
};

GrpcLink::GrpcLink(Executor& loop, Random& random, GrpcLinkOptions options)
    : loop_(loop), random_(random), options_(std::move(options)), backoff_ms_(options_.backoff_ms_min) {}

GrpcLink::~GrpcLink() {
  stop();
  *alive_ = false;
}

void GrpcLink::start(LinkObserver& observer) {
  observer_ = &observer;
  connect();
}

void GrpcLink::stop() {
  loop_.cancel(timer_);
  observer_ = nullptr;
  stream_number_ += 1;
  if (stream_ != nullptr) stream_->cancel();
  stream_.reset();
  channel_.reset();
}

void GrpcLink::connect() {
  const auto address = options_.find_server();
  if (!address) return lost(address.error());
  const std::string& target = address->targets[next_target_++ % address->targets.size()];
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetMaxReceiveMessageSize(kMessageBytesMax);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  std::shared_ptr<grpc::ChannelCredentials> credentials =
      options_.plain_text ? grpc::InsecureChannelCredentials()
                          : grpc::SslCredentials({address->ca_pem, address->key_pem, address->cert_pem});
  channel_ = grpc::CreateCustomChannel(target, credentials, arguments);
  open_stream(target);
}

void GrpcLink::open_stream(const std::string& target) {
  stream_number_ += 1;
  stream_ = std::make_shared<Stream>(*this, stream_number_);
  stream_->start(stream_);
  up_ = true;
  // A host that swallows packets would hold the agent for minutes.
  timer_ = loop_.post_after(options_.connect_timeout_ms, [this, target, alive = alive_] {
    if (*alive) reconnect(target + " did not answer within " + std::to_string(options_.connect_timeout_ms) + " ms");
  });
  observer_->link_up();
}

void GrpcLink::on_message(uint64_t stream, wire::ServerMessage message) {
  if (stream != stream_number_) return;
  loop_.cancel(timer_);
  if (message.has_welcome()) backoff_ms_ = options_.backoff_ms_min;
  observer_->received(std::move(message));
}

void GrpcLink::on_done(uint64_t stream, const Status& why) {
  if (stream == stream_number_) lost(why);
}

void GrpcLink::reconnect(const std::string& why) {
  if (observer_ != nullptr && up_) lost(Status(Code::kUnavailable, "LINK_GIVEN_UP", why));
}

void GrpcLink::lost(const Status& why) {
  loop_.cancel(timer_);
  stream_number_ += 1;
  if (stream_ != nullptr) stream_->cancel();
  stream_.reset();
  channel_.reset();
  // Half of it fixed, half random.
  const int64_t wait_ms =
      backoff_ms_ / 2 + static_cast<int64_t>(random_.below(static_cast<uint64_t>(backoff_ms_ / 2 + 1)));
  backoff_ms_ = std::min(backoff_ms_ * 2, options_.backoff_ms_max);
  timer_ = loop_.post_after(wait_ms, [this, alive = alive_] {
    if (*alive && observer_ != nullptr) connect();
  });
  if (!std::exchange(up_, false)) {
    log::warn("the server cannot be looked up", {{"error", why.message()}});
    return;
  }
  log::debug("no connection to the cluster", {{"error", why.message()}});
  observer_->link_down(why);
}

void GrpcLink::send(wire::AgentMessage message) {
  if (stream_ != nullptr) stream_->send(std::move(message));
}

size_t GrpcLink::queued_bytes() const { return stream_ == nullptr ? 0 : stream_->queued_bytes(); }

void GrpcLink::put_blob(BlobSource source, const wire::AttemptId& attempt, Done done) {
  auto posted = [done = std::move(done), alive = alive_, loop = &loop_](Status status) mutable {
    loop->post([done = std::move(done), status = std::move(status), alive]() mutable {
      if (*alive) done(std::move(status));
    });
  };
  if (channel_ == nullptr)
    return posted(Status(Code::kUnavailable, "LINK_DOWN", "there is no connection to the cluster"));
  start_put(channel_, std::move(source), attempt, std::move(posted));
}

void GrpcLink::get_blob(const std::string& sha256, const wire::AttemptId& attempt,
                        std::unique_ptr<objects::BlobWriter> into, Done done) {
  auto posted = [done = std::move(done), alive = alive_, loop = &loop_](Status status) mutable {
    loop->post([done = std::move(done), status = std::move(status), alive]() mutable {
      if (*alive) done(std::move(status));
    });
  };
  if (channel_ == nullptr)
    return posted(Status(Code::kUnavailable, "LINK_DOWN", "there is no connection to the cluster"));
  start_get(channel_, sha256, attempt, std::move(into), std::move(posted));
}

void GrpcLink::call(const std::string& method, std::string request, int64_t timeout_ms,
                    std::function<void(Result<std::string>)> done) {
  auto posted = [done = std::move(done), alive = alive_, loop = &loop_](Result<std::string> answer) {
    loop->post([done, answer = std::move(answer), alive]() mutable {
      if (*alive) done(std::move(answer));
    });
  };
  if (channel_ == nullptr)
    return posted(fail(Code::kUnavailable, "LINK_DOWN", "there is no connection to the cluster"));
  start_unary(channel_, method, std::move(request), timeout_ms, std::move(posted));
}

}  // namespace uccp::agent
