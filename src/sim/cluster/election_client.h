// A candidate of an election that all these clients enter, through the service that ships: waits to lead, renews,
// relies on its leadership for as long as it may, resigns or falls silent.
#pragma once

#include <string>

#include "sim/cluster/sim_client.h"

namespace uccp::v1 {
class Election;
}

namespace uccp::sim {

class ElectionClient final : public SimClient {
 public:
  ElectionClient(SimCluster& cluster, size_t number, uint64_t operations);

  void start() override;
  bool finished() const override { return left_ == 0; }

 private:
  void enter();
  void entered(int64_t called_us, const std::string& response);
  void note(const v1::Election& election);
  void lead();
  void renew();
  void resign();
  void completed();

  uint64_t left_;
  uint64_t candidacies_ = 0;
  std::string candidate_;  // of one candidacy
  std::string lease_;
  int64_t ttl_ms_ = 0;
};

}  // namespace uccp::sim
