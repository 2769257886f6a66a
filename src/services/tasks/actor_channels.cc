#include "services/tasks/actor_channels.h"

#include <vector>

#include "services/work_types.h"

namespace uccp::tasks {
namespace {

// An agent's stream that has more to take gets no more calls of actors: they wait with their callers.
constexpr size_t kAgentQueueBytes = 16u << 20;

}  // namespace

uint64_t ActorChannels::open(const TaskRef& ref, std::shared_ptr<ActorPeer> peer) {
  const uint64_t number = next_++;
  channels_[number] = {.ref = ref, .peer = std::move(peer), .attempt = {}, .session = nullptr};
  by_task_.emplace(ref, number);
  return number;
}

void ActorChannels::tell_agent(const Channel& channel, uint64_t number, std::string data, bool close) {
  internal::v1::ServerMessage message;
  internal::v1::ChannelData& out = *message.mutable_channel();
  *out.mutable_attempt() = channel.attempt;
  out.set_channel(number);
  out.set_data(std::move(data));
  out.set_close(close);
  channel.session->send(std::move(message));
}

Status ActorChannels::send(uint64_t number, std::string data) {
  const auto found = channels_.find(number);
  if (found == channels_.end() || !found->second.session) {
    return Status(Code::kFailedPrecondition, "ACTOR_NOT_ATTACHED",
                  "calls follow the first answer, which says that the actor is there; wait for it");
  }
  if (found->second.session->queued_bytes() > kAgentQueueBytes) {
    return Status(Code::kExhausted, "AGENT_BUSY", "the actor's worker takes no more just now; nothing was called")
        .with_retry_after_ms(100);
  }
  tell_agent(found->second, number, std::move(data), false);
  return Status::ok();
}

void ActorChannels::close(uint64_t number) {
  const auto found = channels_.find(number);
  if (found == channels_.end()) return;
  if (found->second.session) tell_agent(found->second, number, {}, true);
  by_task_.erase({found->second.ref, number});
  channels_.erase(found);
}

void ActorChannels::attached(const TaskRef& ref, const internal::v1::AttemptId& attempt,
                             const std::shared_ptr<AgentSession>& session) {
  if (!session) return;
  for (auto at = by_task_.lower_bound({ref, 0}); at != by_task_.end() && at->first == ref; ++at) {
    Channel& channel = channels_.at(at->second);
    if (channel.session) continue;
    channel.attempt = attempt;
    channel.session = session;
    channel.peer->attached(attempt.attempt_number());
  }
}

std::vector<ActorChannels::Channel> ActorChannels::take(const TaskRef& ref, bool only_attached) {
  std::vector<Channel> taken;
  for (auto at = by_task_.lower_bound({ref, 0}); at != by_task_.end() && at->first == ref;) {
    const auto found = channels_.find(at->second);
    if (only_attached && !found->second.session) {
      ++at;
      continue;
    }
    taken.push_back(std::move(found->second));
    channels_.erase(found);
    at = by_task_.erase(at);
  }
  return taken;
}

// The object of an attempt is gone; the next one is another, and callers have to know.
void ActorChannels::detached(const TaskRef& ref, const std::optional<Row>& row) {
  if (!row || work::is_terminal(row->task().status())) return ended(ref, row);
  for (const Channel& channel : take(ref, true))
    channel.peer->ended(v1::STREAM_END_REASON_RECONNECT, "the object of the actor is gone; it is made again");
}

void ActorChannels::ended(const TaskRef& ref, const std::optional<Row>& row) {
  const std::string why = row ? row->task().status_reason() : "the actor was removed";
  for (const Channel& channel : take(ref, false)) channel.peer->ended(v1::STREAM_END_REASON_COMPLETED, why);
}

void ActorChannels::answered(const internal::v1::ChannelData& data) {
  const auto found = channels_.find(data.channel());
  if (found == channels_.end()) return;
  if (!found->second.peer->answered(data.data())) close(data.channel());
}

void ActorChannels::session_over(const std::shared_ptr<AgentSession>& session) {
  std::vector<std::shared_ptr<ActorPeer>> peers;
  for (auto at = channels_.begin(); at != channels_.end();) {
    if (at->second.session != session) {
      ++at;
      continue;
    }
    peers.push_back(std::move(at->second.peer));
    by_task_.erase({at->second.ref, at->first});
    at = channels_.erase(at);
  }
  for (const auto& peer : peers) {
    peer->ended(v1::STREAM_END_REASON_RECONNECT, "the worker of the actor is disconnected; it may be back in a moment");
  }
}

void ActorChannels::close_all(const Status& why) {
  by_task_.clear();
  for (const auto& [number, channel] : std::exchange(channels_, {})) channel.peer->failed(why);
}

}  // namespace uccp::tasks
