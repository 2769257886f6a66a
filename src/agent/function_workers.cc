// FunctionExecutor, the processes' part: how workers start, say who they are, rest and go.
#include <sys/socket.h>

#include <algorithm>

#include "agent/function_records.h"
#include "agent/object_server.h"
#include "base/bytes.h"
#include "base/log.h"
#include "runtime/os_random.h"

namespace uccp::agent {
namespace {

constexpr size_t kStrangersMax = 64;
// From the end of a worker's connection to the end of its process.
constexpr int64_t kGoneMs = 2'000;

}  // namespace

void FunctionExecutor::start_worker(Pool& pool) {
  const FunctionEnvironments::Wanted wanted{pool.tenant, pool.name_space, pool.requirements};
  auto worker = std::make_unique<Worker>();
  worker->key = "function-" + std::to_string(next_worker_++) + "-" + to_hex(runtime::random_bytes(4));
  worker->pool = pool.key;
  worker->secret = to_hex(runtime::random_bytes(16));
  AttemptSpec spec;
  spec.key = worker->key;
  spec.tenant = pool.tenant;
  spec.namespace_name = pool.name_space;
  spec.command = environments_.find(wanted, *processes_).command;
  spec.env = {{"UCCP_FUNCTION_SOCKET", listener_.name},
              {"UCCP_FUNCTION_SECRET", worker->secret},
              {"UCCP_FUNCTION_VALUE_BYTES_MAX", std::to_string(options_.value_bytes_max)}};
  if (options_.objects != nullptr) spec.env.merge(options_.objects->environment(pool.tenant, pool.name_space));
  spec.limits = pool.limits;
  worker->timer = reactor_.post_after(options_.start_timeout_ms, [this, key = worker->key, alive = alive_] {
    if (!*alive || !workers_.contains(key)) return;
    processes_->cancel(
        key, {.kind = EndKind::kTimedOut,
              .reason = "it did not say within " + std::to_string(options_.start_timeout_ms) + " ms that it is ready"});
  });
  pool.starting += 1;
  environments_.entered(wanted);
  workers_.emplace(worker->key, std::move(worker));
  processes_->launch({std::move(spec)});
}

void FunctionExecutor::accept_workers() {
  OwnedFd fd(accept4(listener_.socket.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd) return;
  // Whoever says nothing takes the place of a worker only for a moment.
  if (strangers_.size() >= kStrangersMax) {
    reactor_.unwatch(strangers_.begin()->first);
    strangers_.erase(strangers_.begin());
  }
  const int number = fd.get();
  strangers_.emplace(number, std::move(fd));
  reactor_.watch(number, [this, number] { on_stranger(number); });
}

// The first message names the worker and proves by its secret that it is the process that was started for it.
void FunctionExecutor::on_stranger(int fd) {
  auto packet = receive_packet(fd);
  if (packet && !packet->has_value()) return;
  reactor_.unwatch(fd);
  OwnedFd socket = std::move(strangers_.extract(fd).mapped());
  if (!packet || (*packet)->kind != 'H') return;
  const AttemptKey key(find_field((*packet)->body, 'w'));
  const auto found = workers_.find(key);
  if (found == workers_.end() || found->second->socket || find_field((*packet)->body, 'x') != found->second->secret) {
    log::warn("somebody who is no function worker of this agent connected as one", {{"worker", key.substr(0, 64)}});
    return;
  }
  Worker& worker = *found->second;
  worker.socket = std::move(socket);
  pools_.at(worker.pool)->starting -= 1;
  reactor_.cancel(worker.timer);
  reactor_.watch(fd, [this, key] { on_packet(key); });
  became_idle(worker);
}

void FunctionExecutor::on_packet(const AttemptKey& key) {
  const auto found = workers_.find(key);
  if (found == workers_.end()) return;
  Worker& worker = *found->second;
  auto packet = receive_packet(worker.socket.get());
  if (!packet) {
    reactor_.pause(worker.socket.get(), true);
    return expect_end(worker);
  }
  if (!packet->has_value()) return;
  WorkerPacket& message = **packet;
  if (message.kind == 'R') return reply(worker, std::move(message));
  if (worker.call != nullptr && worker.call->actor) actor_packet(worker, message);
  if (message.kind == 'Y' && worker.call != nullptr) return yielded(worker, std::move(message));
  if (message.kind != 'O' || message.body.empty() || worker.call == nullptr) return;
  const auto stream = message.body[0] == 1 ? tasks::LogStreamKind::kStdout : tasks::LogStreamKind::kStderr;
  sink_.output(worker.call->spec.key, stream, clock_.wall(), std::string_view(message.body).substr(1));
}

// Its process is ending, and its end says why. One that only closed its socket is of no use any more.
void FunctionExecutor::expect_end(Worker& worker) {
  worker.stopping = true;
  pools_.at(worker.pool)->idle.erase(worker.key);
  reactor_.cancel(worker.timer);
  worker.timer = reactor_.post_after(kGoneMs, [this, key = worker.key, alive = alive_] {
    if (!*alive || !workers_.contains(key)) return;
    processes_->cancel(
        key, {.kind = EndKind::kSignalled, .reason = "it closed its connection to the agent and did not end"});
  });
}

void FunctionExecutor::became_idle(Worker& worker) {
  if (worker.stopping) return;
  rest(worker);
  pump_all();
}

void FunctionExecutor::rest(Worker& worker) {
  Pool& pool = *pools_.at(worker.pool);
  pool.idle.insert(worker.key);
  worker.timer = reactor_.post_after(options_.idle_ms, [this, key = worker.key, alive = alive_] {
    if (!*alive) return;
    const auto found = workers_.find(key);
    if (found != workers_.end() && found->second->call == nullptr) stop_worker(*found->second);
  });
}

FunctionExecutor::Worker* FunctionExecutor::idle_worker(Pool& pool) {
  if (pool.idle.empty()) return nullptr;
  return workers_.at(pool.idle.extract(pool.idle.begin()).value()).get();
}

// True if one more worker may be started, perhaps in the place of an idle one of another pool, which is being stopped.
bool FunctionExecutor::make_place(const Pool& pool) {
  if (draining_) return false;
  const auto living =
      static_cast<size_t>(std::ranges::count_if(workers_, [](const auto& one) { return !one.second->stopping; }));
  if (living < options_.workers_max) return true;
  for (const auto& [key, other] : pools_) {
    if (other.get() == &pool || other->idle.empty()) continue;
    stop_worker(*workers_.at(*other->idle.begin()));
    return true;
  }
  return false;
}

void FunctionExecutor::stop_worker(Worker& worker) {
  worker.stopping = true;
  pools_.at(worker.pool)->idle.erase(worker.key);
  processes_->cancel(worker.key, {.reason = "no longer needed"});
}

void FunctionExecutor::fail_waiting(Pool& pool, const std::string& message) {
  for (const auto& call : std::exchange(pool.waiting, {})) end_later(call, EndKind::kLaunchFailed, message, false);
}

}  // namespace uccp::agent
