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
  // Not served in time.
  void passed_over();
  // Others hold it before, each for its time, and an earlier holder may have fallen silent.
  int64_t longest_wait_us() const;
  void acquired(int64_t called_us, const std::string& response);
  void hold();
  void renew();
  void release();
  void completed();

  uint64_t left_;
  std::string lock_;
  std::string owner_;  // of one hold, so that two holds of one client are told apart
  uint64_t holds_ = 0;
  int64_t waits_since_us_ = 0;  // if it began when everything was healed; else 0
  std::string lease_;
  int64_t ttl_ms_ = 0;
  int renewals_ = 0;
};

}  // namespace uccp::sim
