// The Python environments of function workers: the agent's own, and virtual environments made from requirements.
//
// An environment is built by an attempt of the process executor, as the user of the namespace, in that attempt's
// folder, which stays as long as the environment does: so code of packages never runs with the rights of the agent, and
// nobody but the namespace reads it. Equal requirements of a namespace share one. What was not used for longest goes
// first. They do not survive the agent. Thread: the reactor's.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "agent/executor.h"
#include "base/clock.h"

namespace uccp::agent {

struct EnvironmentOptions {
  std::string python;  // that environments are made with, and whose packages they see
  size_t environments_max = 32;
  int64_t build_timeout_ms = 600'000;
};

class FunctionEnvironments {
 public:
  FunctionEnvironments(const Clock& clock, EnvironmentOptions options) : clock_(clock), options_(std::move(options)) {}

  struct Wanted {
    std::string tenant, name_space;
    std::vector<std::string> requirements;
  };
  // Key of an environment; equal for equal namespaces and requirements in any order. Empty: the agent's own.
  static std::string key_of(const Wanted& wanted);

  enum class State : uint8_t { kReady, kBuilding, kFailed };
  struct Found {
    State state = State::kReady;
    std::vector<std::string> command;  // kReady: what runs Python
    std::string error;                 // kFailed
  };
  // Finds the environment, and begins to build it with `processes` if there is none.
  Found find(const Wanted& wanted, ExecutorBackend& processes);

  // A worker lives in it, or does no longer: one that has some does not go.
  void entered(const Wanted& wanted);
  void left(const Wanted& wanted);

  // True if the attempt is one of these: then its output and end come here.
  static bool owns(const AttemptKey& key) { return key.starts_with(kPrefix); }
  // The last line that the build has written, for those who wait.
  std::string progress(const AttemptKey& key, std::string_view bytes);
  // True if the attempt builds this environment.
  bool is_of(const AttemptKey& key, const Wanted& wanted) const;
  // The build has ended.
  void finished(const AttemptKey& key, const AttemptEnd& end, ExecutorBackend& processes);

 private:
  static constexpr std::string_view kPrefix = "environment-";
  struct Environment {
    State state = State::kBuilding;
    AttemptKey attempt;
    std::string error;
    std::string tail;  // of the output
    BootTime used;
    size_t users = 0;  // workers
  };
  AttemptSpec build_of(const Wanted& wanted, const AttemptKey& key) const;
  void make_room(ExecutorBackend& processes);

  const Clock& clock_;
  const EnvironmentOptions options_;
  std::map<std::string, Environment> environments_;
  std::map<AttemptKey, std::string> builds_;  // attempt: environment
  uint64_t next_ = 1;
};

}  // namespace uccp::agent
