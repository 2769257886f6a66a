// Reads events of a subscription, publishes what it makes of them to two topics, and confirms them, all in one
// transaction: commits most, aborts some, forgets some.
#pragma once

#include <string>
#include <vector>

#include "services/events/topics_state.h"
#include "sim/cluster/sim_client.h"

namespace uccp::sim {

class TransactionClient final : public SimClient {
 public:
  TransactionClient(SimCluster& cluster, size_t number);

  void start() override;
  bool finished() const override { return true; }

 private:
  // One transaction on its way.
  struct Work {
    size_t checked = 0;  // the checker's number
    std::string id;
    v1::PullEventsResponse input;
  };
  using Then = std::function<void()>;

  void make_topic(size_t number);
  void subscribe();
  void pull();
  void begin(v1::PullEventsResponse input);
  void publish(Work work, size_t topic);
  void confirm(Work work);
  void end(Work work, bool commit);
  void next();
  // As doors do: at any node, or at the leader of the coordinating group, again and again until it is answered.
  void ask_until(const char* rpc, std::string request, std::string request_id,
                 std::function<void(const Result<machine::Applied>&)> done);
  // The transaction takes no more: it has ended by itself, or is ended here.
  void give_up(const Work& work, const Status& why);

  uint64_t epoch_ = 0;
  bool forgot_ = false;  // the last transaction: only a newer epoch begins the next one
  uint64_t requests_ = 0;
  uint64_t numbers_ = 0;
};

}  // namespace uccp::sim
