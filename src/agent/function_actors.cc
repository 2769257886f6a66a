// FunctionExecutor, the actors' part: objects that stay in their processes, and the calls of their methods.
//
// An actor is a call whose process keeps it: it has started when its process has it, takes calls of methods once its
// object is made, and ends as any call does. The packets are those of docs/design/compute.md.
#include "agent/function_records.h"
#include "agent/object_server.h"
#include "base/log.h"

namespace uccp::agent {
namespace {

constexpr int64_t kOwnerChecks = 4;  // in the time that an actor lives without its owners

}  // namespace

void FunctionExecutor::begin_actor(const std::shared_ptr<Call>& call) {
  call->actor =
      std::make_unique<ActorCalls>(options_.actors, [this, key = call->spec.key](uint64_t channel, const auto& reply) {
        sink_.answered(key, channel, reply.SerializeAsString());
      });
  if (call->spec.function->owner_timeout_ms > 0) watch_owner(call);
  if (options_.objects != nullptr) options_.objects->actor_began(call->spec.task_id, call->spec.attempt_number);
}

// Looks now and then; without owners at each look of a whole timeout, the actor is over.
void FunctionExecutor::watch_owner(const std::shared_ptr<Call>& call) {
  const int64_t timeout_ms = call->spec.function->owner_timeout_ms;
  const int64_t step_ms = std::max<int64_t>(1, timeout_ms / kOwnerChecks);
  call->owner_timer = reactor_.post_after(step_ms, [this, call, step_ms, timeout_ms, alive = alive_] {
    if (!*alive || call->ended) return;
    call->ownerless_ms = call->actor->owned() ? 0 : call->ownerless_ms + step_ms;
    if (call->ownerless_ms < timeout_ms) return watch_owner(call);
    stop(call, {.grace_ms = call->spec.grace_ms,
                .reason = "no owner of the actor was connected for " + std::to_string(timeout_ms) + " ms"});
  });
}

void FunctionExecutor::deliver(const AttemptKey& key, uint64_t channel, std::string_view data) {
  const auto found = calls_.find(key);
  if (found == calls_.end() || !found->second->actor || found->second->ended) return;
  v1::ActorRequest request;
  if (!request.ParseFromArray(data.data(), static_cast<int>(data.size()))) {
    log::warn("a call of an actor is malformed", {{"attempt", key}});
    return;
  }
  found->second->actor->request(channel, request);
  feed_actor(*found->second);
}

void FunctionExecutor::close_channel(const AttemptKey& key, uint64_t channel) {
  if (channel == 0) {
    for (const auto& [name, call] : calls_) {
      if (call->actor) call->actor->close_all();
    }
    return;
  }
  const auto found = calls_.find(key);
  if (found != calls_.end() && found->second->actor) found->second->actor->close(channel);
}

// Hands over what the process takes now. One that takes nothing is ending, and its end says why.
void FunctionExecutor::feed_actor(Call& call) {
  const auto worker = workers_.find(call.worker);
  if (!call.actor_ready || worker == workers_.end() || worker->second->stopping) return;
  const int socket = worker->second->socket.get();
  while (auto packet = call.actor->next_packet()) {
    if (!send_packet(socket, 'M', *packet, {}).is_ok()) return expect_end(*worker->second);
  }
  if (const std::string credits = call.actor->take_credits(); !credits.empty())
    if (!send_packet(socket, 'G', credits, {}).is_ok()) expect_end(*worker->second);
}

// A: the object is made. M: results, and that a packet was taken.
void FunctionExecutor::actor_packet(Worker& worker, WorkerPacket& packet) {
  Call& call = *worker.call;
  if (packet.kind == 'A') {
    call.actor_ready = true;
  } else if (packet.kind == 'M') {
    if (const auto body = body_of(std::move(packet), packet_bytes_max())) call.actor->results(*body);
  }
  feed_actor(call);
}

}  // namespace uccp::agent
