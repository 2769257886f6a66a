// Tells a node's RequestQuotas what the replicated state says, and the state what they counted.
//
// On every node, on its loop: once a second the quotas of calls are brought in line with their definitions, what was
// counted is written down through the leader of the work group, and what all nodes wrote down so far is taken up.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/executor.h"
#include "call/request_quotas.h"
#include "machine/ports.h"

namespace uccp::tasks {

struct RequestKeeperEnvironment {
  Executor& loop;
  const Clock& clock;
  machine::Proposer& proposer;  // to the leader of the group, wherever it is
  machine::Watcher& watcher;
  std::function<machine::GroupView()> view;  // of the work group
  std::function<uint32_t()> feature_level;
  std::string node;
};

// On the loop. Must outlive what it began there.
class RequestKeeper {
 public:
  RequestKeeper(RequestKeeperEnvironment environment, call::RequestQuotas& quotas)
      : env_(std::move(environment)), quotas_(quotas) {}

  void start();
  void stop();

 private:
  using Counts = std::vector<call::RequestQuotas::Count>;
  // Calls that are on their way into the state: they are there from `applied` on; 0: not known yet.
  struct Flight {
    Counts counts;
    LogIndex applied;
  };

  void tick();
  void follow();
  void load();
  void write_down();
  void take_up();

  RequestKeeperEnvironment env_;
  call::RequestQuotas& quotas_;
  std::shared_ptr<machine::Watch> watch_;
  std::shared_ptr<bool> changed_ = std::make_shared<bool>(true);  // definitions; on the loop
  uint64_t next_flight_ = 1;
  std::map<uint64_t, Flight> flights_;
  BootTime counted_at_;
  Executor::TimerId timer_ = 0;
  bool stopped_ = false;
};

// "2026-11-26"
std::string day_of(WallTime wall);

}  // namespace uccp::tasks
