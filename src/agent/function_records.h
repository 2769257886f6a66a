// Private to the function executor: what it knows of a call, a worker and a pool.
#pragma once

#include "agent/function_executor.h"
#include "agent/hosted_actor.h"

namespace uccp::agent {

struct FunctionExecutor::Call {
  AttemptSpec spec;
  FunctionCode code;
  std::string pool;
  AttemptKey worker;  // empty: it waits for one, or has ended
  bool ended = false;
  WallTime start;
  std::optional<CancelOptions> cancel;  // why its worker is being stopped
  Executor::TimerId timeout = 0;
  std::unique_ptr<HostedActor> actor;  // of an actor
};

struct FunctionExecutor::Worker {
  AttemptKey key;
  std::string pool;
  std::string secret;
  OwnedFd socket;                // once it has said who it is
  std::set<std::string> loaded;  // digests of the functions that it has
  std::shared_ptr<Call> call;
  Executor::TimerId timer = 0;  // to its first message, then of its idleness
  bool stopping = false;
  std::string last_words;  // the end of what it wrote to its own stderr before it had a call
};

struct FunctionExecutor::Pool {
  std::string key;
  std::string tenant, name_space;
  AttemptLimits limits;
  std::vector<std::string> requirements;
  std::deque<std::shared_ptr<Call>> waiting;
  std::set<AttemptKey> idle;
  size_t starting = 0;
};

}  // namespace uccp::agent
