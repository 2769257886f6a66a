// CallActor and ConnectActor: the doors' side of channels to actors. Handlers run on door threads; what is said on a
// channel passes the loop of the work group.
#pragma once

#include <functional>
#include <mutex>

#include "base/executor.h"
#include "base/random.h"
#include "call/handler.h"
#include "machine/ports.h"
#include "services/tasks/work_runtime.h"
#include "uccp/v1/compute.pb.h"

namespace uccp::tasks {

struct ActorEnvironment {
  Executor& loop;
  WorkRuntime& runtime;
  std::function<machine::GroupView()> view;
  Random& random;  // used under a lock of the service
};

class ActorService {
 public:
  explicit ActorService(ActorEnvironment environment) : env_(std::move(environment)) {}
  void register_handlers(call::HandlerTable& handlers);

 private:
  void call_method(const call::CallPtr& call, v1::CallActorRequest request);
  void connect(const call::CallPtr& call);
  // The task of an actor by its id or name. Errors: not_found ACTOR_NOT_FOUND.
  Result<TaskRef> find(const call::Call& call, const std::string& actor) const;
  std::string random_caller();

  ActorEnvironment env_;
  std::mutex random_mutex_;
};

}  // namespace uccp::tasks
