// The agent of a development node: started in its own process group, restarted when it dies, stopped with the server.
//
// The agent outlives a server that is killed: tasks go on. The next server on the same directory finds it by its lock
// and works with it instead of starting a second one.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "base/status.h"

namespace uccp::server {

struct AgentChildOptions {
  std::string program;       // path of uccp-agent
  std::string data_dir;      // of the agent
  std::string context_file;  // how it reaches the server
  std::string log_file;
  std::string ray_address;  // empty: that of the environment
};

class AgentChild {
 public:
  explicit AgentChild(AgentChildOptions options) : options_(std::move(options)) {}
  ~AgentChild() { stop(); }

  // Starts the agent and a thread that keeps it running.
  void start();
  // Stops the agent, also one that an earlier server started. Waits a few seconds, then kills it.
  void stop();

 private:
  void keep_running();
  void stop_process();

  const AgentChildOptions options_;
  std::atomic<bool> stopping_{false};
  std::atomic<int> wake_fd_{-1};
  std::thread thread_;
};

}  // namespace uccp::server
