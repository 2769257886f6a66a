// What all simulated clients share: calls that are repeated with the same request id until their outcome is known.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/random.h"
#include "sim/cluster/sim_cluster.h"

namespace uccp::sim {

class SimClient {
 public:
  SimClient(SimCluster& cluster, std::string name);
  virtual ~SimClient() = default;

  virtual void start() = 0;
  // It has no more to do and waits for nothing.
  virtual bool finished() const = 0;
  const std::string& name() const { return name_; }

 protected:
  // `called_us` is when the first request was sent. An outcome_unknown that comes here is final: the client gave up.
  using Done = std::function<void(Result<machine::Applied> result, int64_t called_us)>;
  // Sends a write until it is answered. Fills in principal and deduplication.
  void write(GroupId group, machine::Envelope envelope, Done done);
  void cancel_task(machine::Envelope envelope, internal::v1::CancelCommand command, Done done);
  void read(GroupId group, machine::ReadLevel level, SimCluster::Query query, Done done);
  // One attempt, of which the answer may never come; then `done` gets outcome_unknown after a while.
  void try_once(SimCluster::Serve serve, Done done);

  machine::Envelope envelope(std::string command, std::string payload);
  int64_t below(int64_t bound) { return static_cast<int64_t>(random_.below(static_cast<uint64_t>(bound))); }
  bool chance(double probability) { return random_.chance(probability); }
  void after_us(int64_t us, std::function<void()> work) { cluster_.scheduler().schedule_after(us, std::move(work)); }
  // Writes by a session and its sequence numbers instead of request ids from now on.
  void use_session(SessionId session) { session_ = session; }

  SimCluster& cluster_;

 private:
  struct Call;
  void deduplicate(machine::Envelope& envelope);
  void send(const std::shared_ptr<Call>& call);
  void repeat(SimCluster::Serve serve, bool may_give_up, Done done);

  const std::string name_;
  SeededRandom random_;
  uint64_t requests_ = 0;
  SessionId session_;
  uint64_t sequence_ = 0;
};

}  // namespace uccp::sim
