#include "agent/function_executor.h"

#include <algorithm>

#include "agent/function_records.h"
#include "agent/object_server.h"
#include "base/bytes.h"
#include "runtime/os_random.h"
#include "services/function_names.h"

namespace uccp::agent {
namespace {

// Exit code of a call whose process ended by itself with 0: that is no success.
constexpr int kEndedItselfCode = 70;

}  // namespace

FunctionExecutor::FunctionExecutor(Reactor& reactor, const Clock& clock, FunctionExecutorOptions options,
                                   ExecutorSink& sink)
    : reactor_(reactor),
      clock_(clock),
      options_(std::move(options)),
      sink_(sink),
      environments_(clock, {.python = options_.python}),
      values_(reactor, clock, options_.data_directory) {}

FunctionExecutor::~FunctionExecutor() {
  *alive_ = false;
  if (listener_.socket) reactor_.unwatch(listener_.socket.get());
  for (const auto& [fd, owned] : strangers_) reactor_.unwatch(fd);
  for (const auto& [key, worker] : workers_) {
    if (worker->socket) reactor_.unwatch(worker->socket.get());
  }
}

Status FunctionExecutor::attach(ExecutorBackend& processes) {
  processes_ = &processes;
  UCCP_TRY(listener_, listen_for_workers(to_hex(runtime::random_bytes(16))));
  reactor_.watch(listener_.socket.get(), [this] { accept_workers(); });
  return Status::ok();
}

void FunctionExecutor::launch(std::vector<AttemptSpec> specs) {
  std::vector<AttemptSpec> commands;
  for (AttemptSpec& spec : specs) {
    if (spec.function) {
      launch_call(std::move(spec));
      continue;
    }
    if (options_.objects != nullptr) spec.env.merge(options_.objects->environment(spec.tenant, spec.namespace_name));
    commands.push_back(std::move(spec));
  }
  if (!commands.empty()) processes_->launch(std::move(commands));
}

void FunctionExecutor::launch_call(AttemptSpec spec) {
  if (calls_.contains(spec.key)) return;
  auto call = std::make_shared<Call>();
  call->spec = std::move(spec);
  calls_.emplace(call->spec.key, call);
  auto code = code_of(call->spec);
  if (!code)
    return end_later(call, EndKind::kLaunchFailed, code.error().message(), code.error().code() == Code::kUnavailable);
  call->code = std::move(*code);
  Pool& pool = pool_of(*call);
  pool.waiting.push_back(call);
  pump(pool);
}

FunctionExecutor::Pool& FunctionExecutor::pool_of(const Call& call) {
  const AttemptSpec& spec = call.spec;
  const AttemptLimits& limits = spec.limits;
  const std::string environment =
      FunctionEnvironments::key_of({spec.tenant, spec.namespace_name, call.code.requirements});
  ByteWriter key;
  key.bytes(spec.tenant).bytes(spec.namespace_name).bytes(environment).varint(static_cast<uint64_t>(limits.cpu_millis));
  key.varint(limits.memory_bytes).varint(limits.disk_bytes).varint(static_cast<uint64_t>(limits.pids));
  auto& pool = pools_[key.data()];
  if (!pool) {
    pool = std::make_unique<Pool>();
    pool->key = key.data();
    pool->tenant = spec.tenant;
    pool->name_space = spec.namespace_name;
    pool->limits = limits;
    pool->requirements = call.code.requirements;
  }
  const_cast<Call&>(call).pool = key.take();
  return *pool;
}

// Gives waiting calls to idle workers, and starts workers for the others as far as there is room.
void FunctionExecutor::pump(Pool& pool) {
  while (!pool.waiting.empty()) {
    Worker* worker = idle_worker(pool);
    if (worker == nullptr) break;
    auto call = std::move(pool.waiting.front());
    pool.waiting.pop_front();
    assign(*worker, call);
  }
  while (pool.starting < pool.waiting.size() && make_place(pool)) {
    const auto environment = environments_.find({pool.tenant, pool.name_space, pool.requirements}, *processes_);
    if (environment.state == FunctionEnvironments::State::kBuilding) return;
    if (environment.state == FunctionEnvironments::State::kFailed) return fail_waiting(pool, environment.error);
    start_worker(pool);
  }
}

void FunctionExecutor::assign(Worker& worker, const std::shared_ptr<Call>& call) {
  reactor_.cancel(worker.timer);
  auto message = encode_call(call->spec, call->code, !worker.loaded.contains(call->code.digest));
  if (!message) {
    rest(worker);
    return end_later(call, EndKind::kLaunchFailed, message.error().message(),
                     message.error().code() == Code::kUnavailable);
  }
  if (Status sent = send_packet(worker.socket.get(), 'C', message->body, message->files); !sent.is_ok()) {
    stop_worker(worker);
    return end_later(call, EndKind::kLaunchFailed, sent.message(), true);
  }
  worker.loaded.insert(call->code.digest);
  worker.call = call;
  call->worker = worker.key;
  call->start = clock_.wall();
  if (call->spec.function->actor) begin_actor(call);
  sink_.started(call->spec.key, call->start);
  if (call->spec.timeout_ms <= 0) return;
  call->timeout = reactor_.post_after(call->spec.timeout_ms, [this, call, alive = alive_] {
    if (!*alive || call->ended) return;
    stop(call, {.grace_ms = call->spec.grace_ms,
                .kind = EndKind::kTimedOut,
                .reason = "took longer than its timeout of " + std::to_string(call->spec.timeout_ms) + " ms"});
  });
}

// A value, and what is said of it.
uint64_t FunctionExecutor::packet_bytes_max() const { return options_.value_bytes_max + kPacketBytes; }

void FunctionExecutor::reply(Worker& worker, WorkerPacket packet) {
  auto call = std::move(worker.call);
  worker.call = nullptr;
  const auto body = body_of(std::move(packet), packet_bytes_max());
  WorkerReply reply = body ? reply_of(*body) : WorkerReply{.code = 1, .message = body.error().message()};
  // A call that is being stopped ends with its worker; an answer that crossed the stop comes too late.
  if (call == nullptr || call->ended) return;
  if (worker.stopping) {
    worker.call = std::move(call);
    return;
  }
  call->worker.clear();
  // What an actor leaves behind in its process is nobody else's.
  if (call->actor) stop_worker(worker);
  else became_idle(worker);
  keep_value(call, std::move(reply));
}

void FunctionExecutor::yielded(Worker& worker, WorkerPacket packet) {
  const auto body = body_of(std::move(packet), packet_bytes_max());
  if (!body) return;  // its worker is not the one that comes with the agent, which sends none so large
  sink_.yielded(worker.call->spec.key, clock_.wall(),
                {.content_type = std::string(find_field(*body, 'c')), .data = std::string(find_field(*body, 'd'))});
}

// Ends a call with what its worker said.
void FunctionExecutor::keep_value(const std::shared_ptr<Call>& call, WorkerReply reply) {
  reactor_.cancel(call->timeout);
  values_.keep(call->spec.key, std::move(reply), call->start,
               [this, call](AttemptEnd end) { end_call(call, std::move(end)); });
}

void FunctionExecutor::cancel(const AttemptKey& key, const CancelOptions& options) {
  const auto found = calls_.find(key);
  if (found == calls_.end()) return processes_->cancel(key, options);
  if (!found->second->ended) stop(found->second, options);
}

void FunctionExecutor::stop(const std::shared_ptr<Call>& call, const CancelOptions& options) {
  if (!call->cancel) call->cancel = options;
  const auto worker = workers_.find(call->worker);
  if (worker != workers_.end()) {
    worker->second->stopping = true;
    return processes_->cancel(call->worker, options);
  }
  if (const auto pool = pools_.find(call->pool); pool != pools_.end()) std::erase(pool->second->waiting, call);
  end_later(call, options.kind, options.reason, options.kind == EndKind::kLost);
}

void FunctionExecutor::end_call(const std::shared_ptr<Call>& call, AttemptEnd end) {
  if (std::exchange(call->ended, true)) return;
  reactor_.cancel(call->timeout);
  if (call->actor) call->actor->end();
  if (call->actor && options_.objects != nullptr)
    options_.objects->actor_ended(call->spec.task_id, call->spec.attempt_number);
  sink_.finished(call->spec.key, std::move(end));
}

// Never from inside launch(): the caller has not written down yet that it launched.
void FunctionExecutor::end_later(const std::shared_ptr<Call>& call, EndKind kind, std::string message,
                                 bool worker_fault) {
  reactor_.post([this, call, kind, message = std::move(message), worker_fault, alive = alive_]() mutable {
    if (!*alive) return;
    end_call(call, {.kind = kind,
                    .message = std::move(message),
                    .worker_fault = worker_fault,
                    .start = call->start,
                    .end = clock_.wall()});
  });
}

void FunctionExecutor::credit(const AttemptKey& key, size_t bytes) {
  if (!calls_.contains(key)) processes_->credit(key, bytes);
}

void FunctionExecutor::materialize(AttemptSpec spec, std::move_only_function<void(Status)> done) {
  if (spec.function) return done(Status::ok());  // a call has no folder before it has a worker
  processes_->materialize(std::move(spec), std::move(done));
}

void FunctionExecutor::release(const AttemptKey& key) {
  const auto found = calls_.find(key);
  if (found == calls_.end()) return processes_->release(key);
  if (!found->second->ended) return;
  values_.forget(key);
  calls_.erase(found);
}

AttemptUse FunctionExecutor::usage(const AttemptKey& key) const {
  const auto found = calls_.find(key);
  if (found == calls_.end()) return processes_->usage(key);
  return found->second->worker.empty() ? AttemptUse() : processes_->usage(found->second->worker);
}

void FunctionExecutor::drain(const CancelOptions& options, std::move_only_function<void()> drained) {
  draining_ = true;
  std::vector<std::shared_ptr<Call>> calls;
  for (const auto& [key, call] : calls_) {
    if (!call->ended) calls.push_back(call);
  }
  for (const auto& call : calls) stop(call, options);
  // Workers are attempts of the process executor, and end with it.
  processes_->drain(options, std::move(drained));
}

void FunctionExecutor::started(const AttemptKey& key, WallTime time) {
  if (!workers_.contains(key) && !FunctionEnvironments::owns(key)) sink_.started(key, time);
}

void FunctionExecutor::output(const AttemptKey& key, tasks::LogStreamKind stream, WallTime time,
                              std::string_view bytes) {
  if (FunctionEnvironments::owns(key)) {
    processes_->credit(key, bytes.size());
    const std::string line = environments_.progress(key, bytes);
    if (line.empty()) return;
    for (const auto& [name, pool] : pools_) {
      const FunctionEnvironments::Wanted wanted{pool->tenant, pool->name_space, pool->requirements};
      if (!environments_.is_of(key, wanted)) continue;
      for (const auto& call : pool->waiting) sink_.output(call->spec.key, tasks::LogStreamKind::kStderr, time, line);
    }
    return;
  }
  const auto worker = workers_.find(key);
  if (worker == workers_.end()) return sink_.output(key, stream, time, bytes);
  // What does not go through Python's own streams: of libraries and children of the process.
  processes_->credit(key, bytes.size());
  if (worker->second->call != nullptr) return sink_.output(worker->second->call->spec.key, stream, time, bytes);
  constexpr size_t kLastWordsBytes = 1000;
  std::string& words = worker->second->last_words;
  words += bytes;
  if (words.size() > kLastWordsBytes) words.erase(0, words.size() - kLastWordsBytes);
}

void FunctionExecutor::finished(const AttemptKey& key, AttemptEnd end) {
  if (FunctionEnvironments::owns(key)) {
    environments_.finished(key, end, *processes_);
    return pump_all();
  }
  if (!workers_.contains(key)) return sink_.finished(key, std::move(end));
  worker_ended(key, end);
}

std::vector<std::string> FunctionExecutor::reconcile() {
  values_.clear();
  return processes_->reconcile();
}

// The process of a worker is gone, and with it the call that it had.
void FunctionExecutor::worker_ended(const AttemptKey& key, const AttemptEnd& end) {
  auto worker = std::move(workers_.extract(key).mapped());
  reactor_.cancel(worker->timer);
  if (worker->socket) reactor_.unwatch(worker->socket.get());
  processes_->release(key);
  Pool& pool = *pools_.at(worker->pool);
  pool.idle.erase(key);
  environments_.left({pool.tenant, pool.name_space, pool.requirements});
  if (!worker->socket) {
    pool.starting -= 1;
    std::string why = "its Python worker did not start: " + end.message;
    if (!worker->last_words.empty()) why += "; it wrote: " + worker->last_words;
    if (!draining_ && !worker->stopping) fail_waiting(pool, why);
  }
  if (auto call = std::move(worker->call)) {
    call->worker.clear();
    AttemptEnd ended{.kind = end.kind,
                     .exit_code = end.exit_code,
                     .signal = end.signal,
                     .message = end.message,
                     .worker_fault = end.worker_fault,
                     .start = call->start,
                     .end = clock_.wall(),
                     .usage = end.usage};
    if (call->cancel) {
      ended.kind = call->cancel->kind;
      ended.message = call->cancel->reason;
    } else if (end.kind == EndKind::kExited) {
      ended.exit_code = end.exit_code.value_or(0) == 0 ? kEndedItselfCode : end.exit_code;
      ended.message = "the function ended its process (" + end.message + ") in place of returning";
    } else {
      ended.message = "the process of the function ended: " + end.message;
    }
    end_call(call, std::move(ended));
  }
  pump_all();
  forget_unused_pools();
}

// A process that is free, or gone, may be the place that calls of another pool wait for.
void FunctionExecutor::pump_all() {
  if (draining_) return;
  for (const auto& [name, pool] : pools_) {
    if (!pool->waiting.empty()) pump(*pool);
  }
}

void FunctionExecutor::forget_unused_pools() {
  std::set<std::string_view> used;
  for (const auto& [key, worker] : workers_) used.insert(worker->pool);
  std::erase_if(pools_, [&](const auto& one) { return one.second->waiting.empty() && !used.contains(one.first); });
}

}  // namespace uccp::agent
