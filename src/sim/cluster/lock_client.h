// Acquires locks that all clients share, through the service that ships, and waits for its turn.
#pragma once

#include <string>

#include "sim/cluster/hold_client.h"

namespace uccp::sim {

class LockClient final : public HoldClient {
 public:
  LockClient(SimCluster& cluster, size_t number, uint64_t operations);

 private:
  void begin() override;
  ServiceCall renewal() override;
  ServiceCall release() override;
  bool still_holds(const std::string&) override { return true; }

  void acquire();
  void acquired(int64_t called_us, const std::string& response);
  // Not served in time.
  void passed_over();
  void waited();
  // Others hold it before, each for its time, and an earlier holder may have fallen silent.
  int64_t longest_wait_us() const;

  int64_t waits_since_us_ = 0;  // if it began when everything was healed; else 0
};

}  // namespace uccp::sim
