// Which workers' streams come over which connection. Loop thread only.
//
// An agent has a connection of its own. Whoever speaks for many workers may send their streams over a few connections
// if it has the permission agent.multiplex. Without it a connection is one worker's: who gets hold of the certificate
// of one agent does not bring workers by the thousand.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "services/tasks/agent_session.h"

namespace uccp::tasks {

class AgentConnections {
 public:
  // A stream says Hello for a worker; empty: the cluster is to make an id. Errors: permission AGENT_MULTIPLEX_DENIED.
  Status admit(const std::shared_ptr<AgentSession>& session, const std::string& worker_id);
  void remove(const AgentSession& session);
  void clear() { connections_.clear(); }
  size_t size() const { return connections_.size(); }

 private:
  struct Stream {
    std::weak_ptr<AgentSession> session;
    std::string worker_id;  // as it said; empty: it had none yet
  };
  std::map<std::string, std::vector<Stream>> connections_;
};

}  // namespace uccp::tasks
