// Puts, gets and compare-and-sets on a few registers that all clients share; the history goes to the checker.
#pragma once

#include "sim/cluster/sim_client.h"

namespace uccp::sim {

class RegisterClient final : public SimClient {
 public:
  // Without operations it only reads, all the time and from one node, until everything is healed.
  RegisterClient(SimCluster& cluster, size_t number, uint64_t operations);

  void start() override;
  bool finished() const override { return left_ == 0; }

 private:
  void open_session();
  void next();
  void get(const std::string& key);
  void change(const std::string& key, bool compare);
  void completed();

  const uint64_t first_value_;
  uint64_t left_;
  const bool reads_only_;
  uint64_t values_ = 0;
  LogIndex token_;  // of its session: the newest index that it saw
  std::map<std::string, uint64_t> last_seen_;
};

}  // namespace uccp::sim
