#include "services/tasks/agent_connections.h"

#include <algorithm>

namespace uccp::tasks {

Status AgentConnections::admit(const std::shared_ptr<AgentSession>& session, const std::string& worker_id) {
  // Streams inside this process come over none.
  if (session->connection.empty()) return Status::ok();
  std::vector<Stream>& streams = connections_[session->connection];
  std::erase_if(streams, [&](const Stream& stream) {
    const auto other = stream.session.lock();
    return other == nullptr || other == session || !other->open();
  });
  const auto is_another = [&](const Stream& stream) {
    const std::string known = stream.session.lock()->worker_id;
    return worker_id.empty() || (known.empty() ? stream.worker_id : known) != worker_id;
  };
  const auto another = std::ranges::find_if(streams, is_another);
  if (another != streams.end() && !session->may_multiplex) {
    const std::string known = another->session.lock()->worker_id;
    return Status(Code::kPermission, "AGENT_MULTIPLEX_DENIED",
                  "this connection carries the stream of the worker " +
                      (known.empty() ? (another->worker_id.empty() ? "that came first" : another->worker_id) : known) +
                      "; a connection for several workers needs the permission agent.multiplex: give it to the "
                      "caller, or open a connection for each worker")
        .with_help("workers.md#many-workers-on-one-connection");
  }
  streams.push_back({session, worker_id});
  return Status::ok();
}

void AgentConnections::remove(const AgentSession& session) {
  const auto streams = connections_.find(session.connection);
  if (streams == connections_.end()) return;
  std::erase_if(streams->second, [&](const Stream& stream) {
    const auto other = stream.session.lock();
    return other == nullptr || other.get() == &session;
  });
  if (streams->second.empty()) connections_.erase(streams);
}

}  // namespace uccp::tasks
