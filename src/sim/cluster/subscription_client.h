// A member of the subscription of the simulation: pulls, confirms some, gives some back, forgets some.
#pragma once

#include <string>

#include "services/events/topics_state.h"
#include "sim/cluster/sim_client.h"

namespace uccp::sim {

class SubscriptionClient final : public SimClient {
 public:
  SubscriptionClient(SimCluster& cluster, size_t number);

  void start() override;
  bool finished() const override { return true; }

 private:
  void subscribe();
  void pull();
  void take(const std::string& answer, int64_t asked_us);
  void confirm(const v1::PullEventsResponse& pulled);
  void give_back(const std::string& ack_id);
};

}  // namespace uccp::sim
