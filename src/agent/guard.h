// A small process that outlives the agent by a moment: when the agent is gone, however it went, it kills what is left
// of the attempts.
//
// The kernel kills the direct children of a dead agent (parent death signal), but not what those have started. The
// guard holds one end of a pipe; when the other end closes, it kills every process in the agent's control groups and
// exits. It has no threads, no locks and no memory of the agent's secrets beyond what fork copied. Thread: start() in
// main() before any other thread exists.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"

namespace uccp::agent {

class Guard {
 public:
  static Result<Guard> start();
  // The guard ends without killing anything when the agent let go of its groups properly.
  ~Guard();
  Guard(Guard&& other) noexcept;
  Guard& operator=(Guard&&) = delete;

  // Tells it which control group directories are the agent's. Call once.
  Status watch(const std::vector<std::string>& directories);

 private:
  Guard(int fd, int pid) : fd_(fd), pid_(pid) {}
  int fd_ = -1;
  int pid_ = -1;
};

}  // namespace uccp::agent
