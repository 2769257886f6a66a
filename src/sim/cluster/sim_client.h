// What all simulated clients share: calls that are repeated with the same request id until their outcome is known.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
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
  // From any node, until one answers.
  void read(GroupId group, machine::ReadLevel level, SimCluster::Query query, Done done);
  // A call of a service, repeated with the same request id until it is answered; its wait, if it has one, counts anew.
  void ask(ServiceCall call, Done done);
  void ask_any_node(ServiceCall call, Done done);
  // The same of the leader of a group, under the request id that the call has, or none.
  void ask_leader(GroupId group, ServiceCall call, Done done);
  // One attempt of a method that names a subscription, at the leader of core, as doors do.
  void ask_subscriptions(const char* rpc, std::string request, Done done);
  // One attempt, of which the answer may never come; then `done` gets outcome_unknown after a while.
  void try_once(GroupId group, SimCluster::Serve serve, Done done);

  machine::Envelope envelope(std::string command, std::string payload);
  int64_t below(int64_t bound) { return static_cast<int64_t>(random_.below(static_cast<uint64_t>(bound))); }
  bool chance(double probability) { return random_.chance(probability); }
  void after_us(int64_t us, std::function<void()> work) { cluster_.scheduler().schedule_after(us, std::move(work)); }
  // Writes by a session and its sequence numbers instead of request ids from now on.
  void use_session(SessionId session) { session_ = session; }
  // Reads from one node as long as it answers.
  void stay() { stays_ = true; }

  SimCluster& cluster_;
  SeededRandom random_;

 private:
  struct Call;
  // The place of the node to ask: the leader as far as this client knows.
  size_t target(GroupId group);
  // Where it reads.
  size_t reads_from(GroupId group);
  // Learns from an answer where the leader is, or that it is not there.
  void learn(GroupId group, size_t asked, const Status& status);
  void deduplicate(machine::Envelope& envelope);
  void send(const std::shared_ptr<Call>& call);
  void repeat(Call call);

  const std::string name_;
  uint64_t requests_ = 0;
  SessionId session_;
  uint64_t sequence_ = 0;
  std::map<GroupId, size_t> leaders_;
  bool stays_ = false;
  std::optional<size_t> home_;  // where it stays
};

}  // namespace uccp::sim
