#include "services/tasks/actor_service.h"

#include "base/bytes.h"
#include "services/message_types.h"
#include "services/work_types.h"

namespace uccp::tasks {
namespace {

using call::CallPtr;

// Answers that wait for a caller; one that takes them more slowly connects again.
constexpr size_t kCallerQueueBytes = 64u << 20;
constexpr int64_t kWaitDefaultMs = 60'000;
constexpr std::string_view kAgain = "; connect again and repeat what had no result";

Status gone(const std::string& why) {
  return Status(Code::kUnavailable, "ACTOR_GONE",
                "the object of the actor ended before it answered (" + why +
                    "); the method may have run: call again if that does no harm");
}

// One call of CallActor. On the loop.
class OneCall final : public ActorPeer, public std::enable_shared_from_this<OneCall> {
 public:
  OneCall(CallPtr call, WorkRuntime& runtime, v1::CallActorRequest request, std::string caller)
      : call_(std::move(call)), runtime_(runtime), request_(std::move(request)), caller_(std::move(caller)) {}

  void begin(const TaskRef& ref, Executor& loop) {
    auto channel = runtime_.open_actor(ref, shared_from_this());
    if (!channel) return call_->finish(channel.error());
    channel_ = *channel;
    // An actor that is there already says so within open_actor(), before the channel has its number here.
    if (attached_) send();
    const int64_t wait_ms = request_.has_wait() ? services::ms_of(request_.wait()) : kWaitDefaultMs;
    loop.post_after(wait_ms, [weak = weak_from_this(), wait_ms] {
      if (const auto self = weak.lock()) {
        self->finish(Status(Code::kDeadline, "ACTOR_BUSY",
                            "there is no answer after " + std::to_string(wait_ms) +
                                " ms; the method may run still: ask again with the same requestId"));
      }
    });
  }
  void cancel() { finish(Status(Code::kCancelled, "CANCELLED", "the caller went away")); }

  void attached(int32_t) override {
    attached_ = true;
    if (channel_ != 0) send();
  }
  bool answered(const std::string& data) override {
    v1::ActorReply reply;
    if (!reply.ParseFromString(data)) return true;
    for (const v1::ActorResult& result : reply.results()) {
      if (result.more()) values_ += 1;
      else answer(result);
    }
    return true;
  }
  void ended(v1::StreamEndReason, const std::string& why) override {
    channel_ = 0;
    finish(gone(why));
  }
  void failed(const Status& status) override {
    channel_ = 0;
    finish(gone(std::string(status.message())));
  }

 private:
  void send() {
    v1::ActorRequest request;
    request.set_caller(caller_);
    v1::ActorCall& one = *request.add_calls();
    one.set_number(1);
    one.set_method(request_.method());
    *one.mutable_args() = request_.args();
    *one.mutable_kwargs() = request_.kwargs();
    if (Status status = runtime_.send_to_actor(channel_, request.SerializeAsString()); !status.is_ok()) finish(status);
  }
  void answer(const v1::ActorResult& result) {
    if (values_ > 0) {
      return finish(Status(Code::kInvalid, "ACTOR_STREAM",
                           request_.method() + " is a generator; its values come by ConnectActor only"));
    }
    if (call_->finished()) return;
    call_->send(result.SerializeAsString());
    finish(Status::ok());
  }
  void finish(const Status& status) {
    if (const uint64_t channel = std::exchange(channel_, 0)) runtime_.close_actor(channel);
    if (!call_->finished()) call_->finish(status);
  }

  const CallPtr call_;
  WorkRuntime& runtime_;
  const v1::CallActorRequest request_;
  const std::string caller_;
  uint64_t channel_ = 0;
  bool attached_ = false;
  size_t values_ = 0;
};

// One stream of ConnectActor. On the loop.
class Stream final : public ActorPeer, public std::enable_shared_from_this<Stream> {
 public:
  Stream(CallPtr call, WorkRuntime& runtime) : call_(std::move(call)), runtime_(runtime) {}

  // `header`: the first message, by which the actor knows the caller.
  void begin(const TaskRef& ref, std::string header) {
    if (closed_) return;
    header_ = std::move(header);
    auto channel = runtime_.open_actor(ref, shared_from_this());
    if (!channel) return call_->finish(channel.error());
    channel_ = *channel;
    // An actor that is there already says so within open_actor(), before the channel has its number here.
    if (incarnation_ > 0) greet();
  }
  void send(std::string bytes) {
    if (channel_ == 0) return;
    if (Status status = runtime_.send_to_actor(channel_, std::move(bytes)); !status.is_ok()) {
      close();
      call_->finish(std::move(status));
    }
  }
  void close() {
    closed_ = true;
    if (const uint64_t channel = std::exchange(channel_, 0)) runtime_.close_actor(channel);
  }

  void attached(int32_t incarnation) override {
    incarnation_ = incarnation;
    if (channel_ != 0) greet();
  }
  bool answered(const std::string& data) override {
    if (call_->sink->queued_bytes() <= kCallerQueueBytes) {
      call_->send(data);
      return true;
    }
    channel_ = 0;
    end(v1::STREAM_END_REASON_TOO_SLOW, "results are taken too slowly" + std::string(kAgain));
    return false;
  }
  void ended(v1::StreamEndReason reason, const std::string& why) override {
    channel_ = 0;
    end(reason, why);
  }
  void failed(const Status& status) override {
    channel_ = 0;
    call_->finish(status);
  }

 private:
  void greet() {
    send(header_);
    v1::ActorReply reply;
    reply.set_incarnation(incarnation_);
    call_->send(reply.SerializeAsString());
  }
  void end(v1::StreamEndReason reason, const std::string& message) {
    v1::ActorReply reply;
    reply.mutable_end()->set_reason(reason);
    reply.mutable_end()->set_message(message);
    call_->send(reply.SerializeAsString());
    call_->finish(Status::ok());
  }

  const CallPtr call_;
  WorkRuntime& runtime_;
  std::string header_;
  uint64_t channel_ = 0;
  int32_t incarnation_ = 0;
  bool closed_ = false;
};

}  // namespace

void ActorService::register_handlers(call::HandlerTable& handlers) {
  handlers.add_parsed<v1::CallActorRequest>("uccp.v1.ComputeExecution/CallActor",
                                            [this](const CallPtr& c, const auto& r) { call_method(c, r); });
  handlers.add("uccp.v1.ComputeExecution/ConnectActor", [this](const CallPtr& c, const std::string&) { connect(c); });
}

std::string ActorService::random_caller() {
  std::lock_guard lock(random_mutex_);
  std::string id;
  for (int i = 0; i < 2; ++i) id += to_hex(ByteWriter().u64(env_.random.next()).data());
  return id;
}

Result<TaskRef> ActorService::find(const call::Call& call, const std::string& actor) const {
  const machine::Scope scope{call.principal.tenant, call.name_space};
  const machine::GroupView view = env_.view();
  if (work::kTasks.contains(view, scope, actor)) return TaskRef{scope.tenant, scope.name_space, actor};
  if (const auto id = work::kActorNames.get(view, scope, actor)) return TaskRef{scope.tenant, scope.name_space, *id};
  return uccp::fail(Status(Code::kNotFound, "ACTOR_NOT_FOUND", "there is no actor " + actor + " in this namespace")
                        .with_resource("actor", actor));
}

void ActorService::call_method(const CallPtr& call, v1::CallActorRequest request) {
  auto ref = find(*call, request.actor());
  if (!ref) return call->finish(ref.error());
  // The key is the caller's own: another principal's of the same name is another.
  const std::string caller =
      request.request_id().empty() ? random_caller() : "request " + call->principal.name + " " + request.request_id();
  auto one = std::make_shared<OneCall>(call, env_.runtime, std::move(request), caller);
  call->keep(one);
  call->on_cancel([one, &loop = env_.loop] { loop.post([one] { one->cancel(); }); });
  call->begin_waiting();
  env_.loop.post([one, ref = std::move(*ref), &loop = env_.loop] { one->begin(ref, loop); });
}

void ActorService::connect(const CallPtr& call) {
  auto stream = std::make_shared<Stream>(call, env_.runtime);
  call->keep(stream);
  const auto closed = [stream, &loop = env_.loop] { loop.post([stream] { stream->close(); }); };
  call->on_cancel(closed);
  call->on_half_close([call, closed] {
    closed();
    call->finish(Status::ok());
  });
  call->on_message([this, call, stream, begun = false](std::string bytes) mutable {
    if (std::exchange(begun, true)) {
      return env_.loop.post([stream, bytes = std::move(bytes)]() mutable { stream->send(std::move(bytes)); });
    }
    v1::ActorRequest first;
    if (!first.ParseFromString(bytes) || first.actor().empty() || first.caller().empty()) {
      return call->finish(Status(Code::kInvalid, "ACTOR_HEADER_MISSING", "the first message must name actor and caller")
                              .with_field("actor", "must not be empty", "scores")
                              .with_field("caller", "must not be empty"));
    }
    auto ref = find(*call, first.actor());
    if (!ref) return call->finish(ref.error());
    env_.loop.post(
        [stream, ref = std::move(*ref), bytes = std::move(bytes)]() mutable { stream->begin(ref, std::move(bytes)); });
  });
}

}  // namespace uccp::tasks
