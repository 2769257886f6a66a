// The port to whatever makes workers and takes them away: processes of this machine, later machines of a cloud.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "services/tasks/autoscaler.h"

namespace uccp::tasks {

class Provisioner {
 public:
  virtual ~Provisioner() = default;

  using Done = std::function<void(Status)>;
  using Listed = std::function<void(std::vector<ScalingInstance>)>;

  // None of these blocks; they are done one after the other, so that a list shows all that was asked for before it.
  // Answers come on a thread of the provisioner.

  // Starts the worker of a new instance, or of one that exists and has ended, with the labels uccp/scaling-group and
  // uccp/scaling-instance. One that runs is left alone. `done` says whether it began, not that it registered.
  virtual void start(const std::string& group, const std::string& instance, Done done) = 0;
  // Ends it, with time to stop what it runs, and forgets it. One that does not exist is forgotten already.
  virtual void stop(const std::string& instance) = 0;
  // Those that it has, also from before a restart.
  virtual void list(Listed listed) = 0;
};

}  // namespace uccp::tasks
