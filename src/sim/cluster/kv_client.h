// Puts, deletes, transactions and reads of a few keys of the key-value store, through the service that ships.
#pragma once

#include <string>

#include "sim/cluster/sim_client.h"

namespace uccp::sim {

class KvClient final : public SimClient {
 public:
  KvClient(SimCluster& cluster, size_t number, uint64_t operations);

  void start() override;
  bool finished() const override { return left_ == 0; }

 private:
  void next();
  void put();
  void erase();
  void transact();
  void read();
  // Of `past`, or of what is there if that is 0.
  void read_failed(const Status& why, int64_t past, bool bounded);
  void compact();
  std::string any_key();
  std::string fresh_value();
  // Sends a change; `revision_of` finds in the answer the revision that it made, 0 if it made none.
  void change(const char* rpc, std::string request, int64_t (*revision_of)(const std::string& answer));
  void completed();

  uint64_t left_;
  uint64_t values_ = 0;
  LogIndex token_;
  int64_t seen_revision_ = 0;
  std::string seen_value_;
};

}  // namespace uccp::sim
