// One instance of a service: registers, sends heartbeats, changes its health, falls silent, deregisters, comes back.
#pragma once

#include "sim/cluster/sim_client.h"

namespace uccp::sim {

class ServiceClient final : public SimClient {
 public:
  ServiceClient(SimCluster& cluster, size_t number);

  void start() override;
  // Silent after the healing; its instance then has to expire.
  bool finished() const override { return ended_; }

 private:
  void enroll();
  void beat();
  void heartbeat();
  void list();
  void discover();
  void deregister();
  void report_health();
  void later(int64_t us);

  const std::string id_;
  const std::string service_;
  const int64_t port_;
  const int64_t ttl_ms_;
  machine::LeaseId lease_ = 0;
  int64_t renewed_us_ = 0;  // when it last learned so
  bool ended_ = false;
};

std::string lease_name(machine::LeaseId lease);

}  // namespace uccp::sim
