// Acquires locks that all clients share, through the service that ships: waits its turn, renews, relies on what it
// holds for as long as it may, releases or falls silent.
#pragma once

#include <string>

#include "sim/cluster/sim_client.h"

namespace uccp::sim {

class LockClient final : public SimClient {
 public:
  LockClient(SimCluster& cluster, size_t number, uint64_t operations);

  void start() override;
  bool finished() const override { return left_ == 0; }

 private:
  void next();
  void acquire();
  void acquired(int64_t called_us, const std::string& response);
  void hold();
  void renew();
  void release();
  void completed();

  uint64_t left_;
  std::string lock_;
  std::string owner_;  // of one hold, so that two holds of one client are told apart
  uint64_t holds_ = 0;
  std::string lease_;
  int64_t ttl_ms_ = 0;
  int renewals_ = 0;
};

}  // namespace uccp::sim
