// WorkRuntime, the part about those who follow the output of running attempts.
#include "services/tasks/attempts.h"
#include "services/tasks/work_runtime.h"

namespace uccp::tasks {

using internal::v1::ServerMessage;

uint64_t WorkRuntime::subscribe_logs(const TaskRef& ref, int32_t attempt, const LogStart& start, LogSink sink) {
  const auto live = attempts_.find(ref);
  if (live == attempts_.end() || (attempt != 0 && live->second.id.attempt_number() != attempt)) return 0;
  const auto worker = workers_.find(live->second.id.worker_id());
  if (worker == workers_.end() || !worker->second.session) return 0;
  const uint64_t id = next_subscription_++;
  subscriptions_[id] = {ref, live->second.id, std::move(sink)};
  ServerMessage message;
  auto& subscribe = *message.mutable_subscribe_logs();
  *subscribe.mutable_attempt() = live->second.id;
  subscribe.set_subscription(id);
  subscribe.set_stdout_offset(start.stdout_offset);
  subscribe.set_stderr_offset(start.stderr_offset);
  subscribe.set_follow(start.follow);
  subscribe.set_values(start.values);
  worker->second.session->send(std::move(message));
  return id;
}

void WorkRuntime::unsubscribe_logs(uint64_t subscription) {
  const auto node = subscriptions_.extract(subscription);
  if (node.empty()) return;
  const auto worker = workers_.find(node.mapped().attempt.worker_id());
  if (worker == workers_.end() || !worker->second.session) return;
  ServerMessage message;
  *message.mutable_unsubscribe_logs()->mutable_attempt() = node.mapped().attempt;
  message.mutable_unsubscribe_logs()->set_subscription(subscription);
  worker->second.session->send(std::move(message));
}

}  // namespace uccp::tasks
