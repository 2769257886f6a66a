// FunctionExecutor, the actors' part: an actor is a call whose process keeps it. It has started when its process has
// it, takes calls of methods once its object is made, and ends as any call does.
#include "agent/function_records.h"
#include "agent/object_server.h"

namespace uccp::agent {

void FunctionExecutor::begin_actor(const std::shared_ptr<Call>& call) {
  call->actor = std::make_unique<HostedActor>(
      reactor_, options_.actors, call->spec.function->owner_timeout_ms,
      HostedActor::Hooks{
          .answer = [this, key = call->spec.key](
                        uint64_t channel,
                        const auto& reply) { sink_.answered(key, channel, reply.SerializeAsString()); },
          .send = [this, one = call.get()](char kind, const std::string& body) { return send_to(*one, kind, body); },
          .abandoned =
              [this, weak = std::weak_ptr(call)](std::string why) {
                const auto abandoned = weak.lock();
                if (abandoned == nullptr || abandoned->ended) return;
                stop(abandoned, {.grace_ms = abandoned->spec.grace_ms, .reason = std::move(why)});
              }});
  if (options_.objects != nullptr) options_.objects->actor_began(call->spec.task_id, call->spec.attempt_number);
}

// One that takes nothing is ending, and its end says why.
Status FunctionExecutor::send_to(const Call& call, char kind, const std::string& body) {
  const auto worker = workers_.find(call.worker);
  if (worker == workers_.end() || worker->second->stopping)
    return Status(Code::kUnavailable, "WORKER_GONE", "the process of the actor is ending");
  Status sent = send_packet(worker->second->socket.get(), kind, body, {});
  if (!sent.is_ok()) expect_end(*worker->second);
  return sent;
}

void FunctionExecutor::deliver(const AttemptKey& key, uint64_t channel, std::string_view data) {
  const auto found = calls_.find(key);
  if (found == calls_.end() || !found->second->actor || found->second->ended) return;
  found->second->actor->request(channel, data);
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

void FunctionExecutor::actor_packet(Worker& worker, WorkerPacket& packet) {
  const char kind = packet.kind;
  if (kind != 'A' && kind != 'M') return;
  if (const auto body = body_of(std::move(packet), packet_bytes_max())) worker.call->actor->packet(kind, *body);
}

}  // namespace uccp::agent
