// Watches the key-value store through the service that ships, through restarts and from node to node, each time from
// where it was; now and then from an earlier revision.
#pragma once

#include <memory>

#include "sim/cluster/sim_client.h"

namespace uccp::sim {

class KvWatchClient final : public SimClient {
 public:
  KvWatchClient(SimCluster& cluster, size_t number);

  void start() override;
  bool finished() const override { return true; }
  // Goes on there.
  void move_to(size_t place);
  // Its subscription at work.
  size_t subscription() const { return subscription_; }

 private:
  class Stream;
  void poll();
  void open(int64_t start, size_t place);
  void take(const std::string& bytes);

  std::shared_ptr<Stream> stream_;
  SimNode* node_ = nullptr;
  uint64_t generation_ = 0;  // of the process that serves it; 0: none does
  size_t subscription_ = 0;
  int64_t next_revision_ = 1;
};

}  // namespace uccp::sim
