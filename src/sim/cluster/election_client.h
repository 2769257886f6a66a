// A candidate of an election that all these clients enter, through the service that ships, and wait to lead.
#pragma once

#include <string>

#include "sim/cluster/hold_client.h"

namespace uccp::v1 {
class Election;
}

namespace uccp::sim {

class ElectionClient final : public HoldClient {
 public:
  ElectionClient(SimCluster& cluster, size_t number, uint64_t operations);

 private:
  void begin() override;
  ServiceCall renewal() override;
  ServiceCall release() override;
  bool still_holds(const std::string& response) override;

  void entered(int64_t called_us, const std::string& response);
  void note(const v1::Election& election);
};

}  // namespace uccp::sim
