#include "agent/ray_executor.h"

#include <signal.h>

#include <algorithm>
#include <charconv>

#include "agent/hosted_actor.h"
#include "base/log.h"

namespace uccp::agent {
namespace {

// From the end of the grace to the moment at which a stopped call is over whatever Ray says.
constexpr int64_t kEndMs = 30'000;

// That a driver keeps; then it forgets all of them, and is told again.
constexpr size_t kFunctionsMax = 1000;

// How Ray says that a call ended without a value (field `q` of E); else its process crashed.
constexpr std::string_view kLostByRay = "lost", kRefused = "refused";

uint64_t number_of(std::string_view text) {
  uint64_t value = 0;
  (void)std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

}  // namespace

struct RayExecutor::Call {
  AttemptSpec spec;
  FunctionCode code;
  uint64_t number = 0;  // 0: no driver has it
  bool ended = false;   // its end was told, or is about to be
  WallTime start;
  std::optional<CancelOptions> cancel;
  std::unique_ptr<HostedActor> actor;
  Executor::TimerId timer = 0;  // to its timeout, then to the moment at which it is given up
};

RayExecutor::RayExecutor(Reactor& reactor, const Clock& clock, RayExecutorOptions options, ExecutorSink& sink)
    : reactor_(reactor),
      clock_(clock),
      options_(std::move(options)),
      sink_(sink),
      sidecar_(reactor, options_.sidecar, *this),
      values_(reactor, clock, options_.data_directory) {}

RayExecutor::~RayExecutor() {
  *alive_ = false;
  for (const auto& [key, call] : calls_) reactor_.cancel(call->timer);
}

Status RayExecutor::attach(ExecutorBackend& next) {
  next_ = &next;
  return sidecar_.start();
}

void RayExecutor::launch(std::vector<AttemptSpec> specs) {
  std::vector<AttemptSpec> others;
  for (AttemptSpec& spec : specs) {
    if (spec.function) launch_call(std::move(spec));
    else others.push_back(std::move(spec));
  }
  if (!others.empty()) next_->launch(std::move(others));
}

void RayExecutor::launch_call(AttemptSpec spec) {
  if (calls_.contains(spec.key)) return;
  const auto call = std::make_shared<Call>();
  call->spec = std::move(spec);
  calls_.emplace(call->spec.key, call);
  auto code = code_of(call->spec);
  if (!code)
    return end_later(call, EndKind::kLaunchFailed, code.error().message(), code.error().code() == Code::kUnavailable);
  call->code = std::move(*code);
  if (!call->code.requirements.empty()) {
    return end_later(call, EndKind::kLaunchFailed,
                     "functions with requirements do not run on Ray; install the packages on its nodes and leave "
                     "requirements out",
                     false);
  }
  if (sidecar_.up()) hand_over(call);
  else waiting_.push_back(call);
}

void RayExecutor::hand_over(const CallPointer& call) {
  const AttemptSpec& spec = call->spec;
  auto message = encode_call(spec, call->code, false);
  if (!message) {
    return end_later(call, EndKind::kLaunchFailed, message.error().message(),
                     message.error().code() == Code::kUnavailable);
  }
  if (known_.size() >= kFunctionsMax && !known_.contains(call->code.digest)) known_.clear();
  if (known_.insert(call->code.digest).second) {
    std::string function;
    if (known_.size() == 1) append_field(function, 'z', {});  // the others are forgotten
    append_field(function, 'f', call->code.digest);
    append_field(function, 'n', call->code.name);
    append_field(function, 's', call->code.source);
    sidecar_.send('F', function);
  }
  call->number = next_number_++;
  in_flight_.emplace(call->number, call);
  std::string fields;
  append_field(fields, 'i', std::to_string(call->number));
  append_field(fields, 'f', call->code.digest);
  append_field(fields, 't', spec.tenant);
  append_field(fields, 'n', spec.namespace_name);
  append_field(fields, 'u', std::to_string(spec.limits.cpu_millis));
  append_field(fields, 'y', std::to_string(spec.limits.memory_bytes));
  if (spec.function->actor) append_field(fields, 'a', {});
  append_field(fields, 'b', message->body);
  sidecar_.send('C', fields, std::move(message->files));
  call->start = clock_.wall();
  if (spec.function->actor) begin_actor(call);
  sink_.started(spec.key, call->start);
  if (spec.timeout_ms <= 0) return;
  call->timer = reactor_.post_after(spec.timeout_ms, [this, call, alive = alive_] {
    if (!*alive || call->ended) return;
    stop(call, {.grace_ms = call->spec.grace_ms,
                .kind = EndKind::kTimedOut,
                .reason = "took longer than its timeout of " + std::to_string(call->spec.timeout_ms) + " ms"});
  });
}

void RayExecutor::begin_actor(const CallPointer& call) {
  const auto answer = [this, key = call->spec.key](uint64_t channel, const auto& reply) {
    sink_.answered(key, channel, reply.SerializeAsString());
  };
  const auto abandoned = [this, weak = std::weak_ptr(call)](std::string why) {
    const auto found = weak.lock();
    if (found != nullptr && !found->ended) stop(found, {.grace_ms = found->spec.grace_ms, .reason = std::move(why)});
  };
  call->actor = std::make_unique<HostedActor>(
      reactor_, options_.actors, call->spec.function->owner_timeout_ms,
      HostedActor::Hooks{.answer = answer,
                         .send = [this, number = call->number](
                                     char kind, const std::string& body) { return send_to(number, kind, body); },
                         .abandoned = abandoned});
}

Status RayExecutor::send_to(uint64_t number, char kind, const std::string& body) {
  const auto found = in_flight_.find(number);
  if (found == in_flight_.end() || found->second->cancel)
    return Status(Code::kUnavailable, "WORKER_GONE", "the process of the actor has ended or is about to");
  std::string fields;
  append_field(fields, 'i', std::to_string(number));
  append_field(fields, 'b', body);
  sidecar_.send(kind, fields);
  return {};
}

void RayExecutor::sidecar_up() {
  for (const CallPointer& call : std::exchange(waiting_, {})) hand_over(call);
}

// Of a driver that was up, calls are lost; those that waited for one that could not begin have failed.
void RayExecutor::sidecar_down(const std::string& why) {
  known_.clear();
  for (const auto& [number, call] : std::exchange(in_flight_, {})) {
    call->number = 0;
    end_later(call, EndKind::kLost, "the driver of Ray ended with the call: " + why, true);
  }
  for (const CallPointer& call : std::exchange(waiting_, {})) {
    end_later(call, EndKind::kLaunchFailed, "there is no connection to Ray at " + options_.sidecar.address + ": " + why,
              true);
  }
}

void RayExecutor::sidecar_message(char kind, std::string_view fields) {
  const auto found = in_flight_.find(number_of(find_field(fields, 'i')));
  if (found == in_flight_.end()) return;  // it is over here
  const CallPointer call = found->second;
  if (kind == 'E') return ended_by_ray(call, fields);
  const std::string_view said_kind = find_field(fields, 'k');
  if (kind == 'P' && !said_kind.empty()) said(call, said_kind[0], find_field(fields, 'b'));
}

// What the process of the call says, as a function worker of this machine would.
void RayExecutor::said(const CallPointer& call, char kind, std::string_view body) {
  const AttemptKey& key = call->spec.key;
  if (kind == 'O' && !body.empty()) {
    const auto stream = body[0] == 1 ? tasks::LogStreamKind::kStdout : tasks::LogStreamKind::kStderr;
    sink_.output(key, stream, clock_.wall(), body.substr(1));
  } else if (kind == 'Y') {
    sink_.yielded(key, clock_.wall(),
                  {.content_type = std::string(find_field(body, 'c')), .data = std::string(find_field(body, 'd'))});
  } else if (kind == 'A' || kind == 'M') {
    if (call->actor && !call->cancel) call->actor->packet(kind, body);
  } else if (kind == 'R') {
    if (call->cancel) return ended_by_ray(call, {});  // the answer crossed the stop
    in_flight_.erase(call->number);
    reactor_.cancel(call->timer);
    values_.keep(key, reply_of(body), call->start, [this, call](AttemptEnd end) { end_call(call, std::move(end)); });
  }
}

void RayExecutor::ended_by_ray(const CallPointer& call, std::string_view fields) {
  AttemptEnd end{.message = std::string(find_field(fields, 'm')), .start = call->start, .end = clock_.wall()};
  const std::string_view code = find_field(fields, 'q');
  if (call->cancel) {
    end.kind = call->cancel->kind;
    end.message = call->cancel->reason;
    end.worker_fault = end.kind == EndKind::kLost;
  } else if (code == kLostByRay) {
    end.kind = EndKind::kLost;
    end.worker_fault = true;
  } else if (code == kRefused) {
    end.kind = EndKind::kLaunchFailed;
  } else {
    end.kind = EndKind::kSignalled;
    end.signal = SIGKILL;
  }
  end_call(call, std::move(end));
}

void RayExecutor::cancel(const AttemptKey& key, const CancelOptions& options) {
  const auto found = calls_.find(key);
  if (found == calls_.end()) return next_->cancel(key, options);
  if (!found->second->ended) stop(found->second, options);
}

void RayExecutor::stop(const CallPointer& call, const CancelOptions& options) {
  if (!call->cancel) call->cancel = options;
  if (call->number == 0) {
    std::erase(waiting_, call);
    return end_later(call, options.kind, options.reason, options.kind == EndKind::kLost);
  }
  if (!in_flight_.contains(call->number)) return;  // its value is being kept
  std::string fields;
  append_field(fields, 'i', std::to_string(call->number));
  append_field(fields, 'g', std::to_string(options.grace_ms));
  sidecar_.send('X', fields);
  reactor_.cancel(call->timer);
  call->timer = reactor_.post_after(options.grace_ms + kEndMs, [this, call, alive = alive_] {
    if (!*alive || call->ended) return;
    log::warn("Ray did not end a call that was stopped", {{"attempt", call->spec.key}});
    ended_by_ray(call, {});
  });
}

void RayExecutor::end_call(const CallPointer& call, AttemptEnd end) {
  if (std::exchange(call->ended, true)) return;
  in_flight_.erase(call->number);
  reactor_.cancel(call->timer);
  if (call->actor) call->actor->end();
  sink_.finished(call->spec.key, std::move(end));
  check_drained();
}

// Never from inside launch(): the caller has not written down yet that it launched.
void RayExecutor::end_later(const CallPointer& call, EndKind kind, std::string message, bool worker_fault) {
  reactor_.post([this, call, kind, message = std::move(message), worker_fault, alive = alive_]() mutable {
    if (!*alive) return;
    end_call(call, {.kind = kind,
                    .message = std::move(message),
                    .worker_fault = worker_fault,
                    .start = call->start,
                    .end = clock_.wall()});
  });
}

void RayExecutor::credit(const AttemptKey& key, size_t bytes) {
  if (!calls_.contains(key)) next_->credit(key, bytes);
}

void RayExecutor::materialize(AttemptSpec spec, std::move_only_function<void(Status)> done) {
  if (spec.function) return done(Status::ok());  // a call has no folder here
  next_->materialize(std::move(spec), std::move(done));
}

void RayExecutor::release(const AttemptKey& key) {
  const auto found = calls_.find(key);
  if (found == calls_.end()) return next_->release(key);
  if (!found->second->ended) return;
  values_.forget(key);
  calls_.erase(found);
}

void RayExecutor::deliver(const AttemptKey& key, uint64_t channel, std::string_view data) {
  const auto found = calls_.find(key);
  if (found == calls_.end()) return next_->deliver(key, channel, data);
  if (found->second->actor && !found->second->ended) found->second->actor->request(channel, data);
}

void RayExecutor::close_channel(const AttemptKey& key, uint64_t channel) {
  if (channel == 0) {
    for (const auto& [name, call] : calls_) {
      if (call->actor) call->actor->close_all();
    }
    return next_->close_channel(key, channel);
  }
  const auto found = calls_.find(key);
  if (found == calls_.end()) return next_->close_channel(key, channel);
  if (found->second->actor) found->second->actor->close(channel);
}

// What it uses is used on Ray's nodes.
AttemptUse RayExecutor::usage(const AttemptKey& key) const {
  return calls_.contains(key) ? AttemptUse() : next_->usage(key);
}

std::vector<std::string> RayExecutor::reconcile() {
  values_.clear();
  return next_->reconcile();
}

void RayExecutor::drain(const CancelOptions& options, std::move_only_function<void()> drained) {
  drained_ = std::move(drained);
  std::vector<CallPointer> living;
  for (const auto& [key, call] : calls_) {
    if (!call->ended) living.push_back(call);
  }
  for (const CallPointer& call : living) stop(call, options);
  next_->drain(options, [this, alive = alive_] {
    if (!*alive) return;
    next_is_drained_ = true;
    check_drained();
  });
}

void RayExecutor::check_drained() {
  if (!next_is_drained_ || !drained_) return;
  if (std::ranges::any_of(calls_, [](const auto& one) { return !one.second->ended; })) return;
  reactor_.post(std::exchange(drained_, nullptr));
}

}  // namespace uccp::agent
