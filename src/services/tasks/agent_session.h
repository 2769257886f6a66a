#pragma once

#include <cstddef>
#include <string>

#include "base/status.h"
#include "uccp/internal/v1/agent.pb.h"

namespace uccp::tasks {

// The stream to one agent. send() may be called from the loop only; the agent's messages come to WorkRuntime::receive.
class AgentSession {
 public:
  virtual ~AgentSession() = default;
  virtual void send(internal::v1::ServerMessage message) = 0;
  virtual void close(Status status) = 0;
  // Bytes that wait for the agent to take them.
  virtual size_t queued_bytes() const { return 0; }

  virtual bool open() const { return true; }

  // Whose stream it is; empty before the Welcome. On the loop only.
  std::string worker_id;
  // The connection that it came over, with who opened it; empty: none. Set before the first message.
  std::string connection;
  bool may_multiplex = false;  // the caller may have streams of several workers on one connection
};

}  // namespace uccp::tasks
