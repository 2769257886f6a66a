// Submits tasks with dependencies and retries, and cancels some.
#pragma once

#include <vector>

#include "sim/cluster/sim_client.h"

namespace uccp::sim {

class TaskClient final : public SimClient {
 public:
  TaskClient(SimCluster& cluster, size_t number, uint64_t operations);

  void start() override;
  bool finished() const override { return left_ == 0; }

 private:
  void next();
  void submit();
  void submit_gang();
  bool gangs_are_known() const;
  v1::Task new_task();
  void cancel();
  void completed();

  uint64_t left_;
  uint64_t tasks_ = 0;
  std::vector<std::string> known_;  // acknowledged
};

}  // namespace uccp::sim
