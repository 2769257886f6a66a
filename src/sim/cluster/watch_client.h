// Watches one topic through restarts, each time from the last cursor; now and then from an earlier one.
#pragma once

#include <memory>
#include <string>

#include "sim/cluster/sim_client.h"

namespace uccp::sim {

class WatchClient final : public SimClient {
 public:
  WatchClient(SimCluster& cluster, size_t number, GroupId group, std::string topic);

  void start() override;
  bool finished() const override { return true; }
  const std::string& topic() const { return topic_; }
  GroupId group() const { return group_; }
  // Goes on there.
  void move_to(size_t place);
  // Its subscription at work.
  size_t subscription() const { return subscription_; }

 private:
  void poll();
  void subscribe(LogIndex since, size_t place);
  void deliver(size_t subscription, const machine::Change& change);
  void note_service(const machine::Change& change);
  void note_permit(const machine::Change& change);
  void note_election(const machine::Change& change);

  const GroupId group_;
  const std::string topic_;
  std::shared_ptr<machine::Watch> watch_;
  SimNode* node_ = nullptr;  // serves it
  uint64_t generation_ = 0;  // of that process
  size_t subscription_ = 0;
  LogIndex cursor_;
};

}  // namespace uccp::sim
