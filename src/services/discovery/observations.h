// What is found out about instances outside the log, on the node that leads: gathered for a moment, then one command.
//
// Lives on one executor.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/executor.h"
#include "machine/ports.h"
#include "services/discovery/discovery_state.h"
#include "services/discovery/presence.h"
#include "uccp/internal/v1/node.pb.h"

namespace uccp::discovery {

class Observations : public std::enable_shared_from_this<Observations> {
 public:
  // `feature_level`: that of the cluster; none: the newest.
  // `presence`: outlives it.
  static std::shared_ptr<Observations> make(machine::Proposer& proposer, Executor& executor, const Clock& clock,
                                            Presence& presence, std::function<uint32_t()> feature_level = {}) {
    return std::shared_ptr<Observations>(
        new Observations(proposer, executor, clock, presence, std::move(feature_level)));
  }

  // Any thread. Later findings about an instance replace earlier ones, field by field.
  void add(internal::v1::ServiceObservation observation);
  // A node tells what its checks found. `done` comes when that is committed, with the nodes that make checks now.
  using Told = std::move_only_function<void(Result<internal::v1::ReportChecksResponse>)>;
  void report(internal::v1::ReportChecksRequest request, Told done);

  // Around a report of this node, wherever it goes: asks for heartbeats since the last one, and takes them. Any thread.
  void ask_heard(internal::v1::ReportChecksRequest& request);
  void take_heard(const internal::v1::ReportChecksResponse& response, BootTime asked);

 private:
  Observations(machine::Proposer& proposer, Executor& executor, const Clock& clock, Presence& presence,
               std::function<uint32_t()> level)
      : proposer_(proposer),
        executor_(executor),
        clock_(clock),
        presence_(presence),
        feature_level_(std::move(level)) {}
  void add_heard(const internal::v1::ReportChecksRequest& request, internal::v1::ReportChecksResponse& response);
  void flush();
  void propose(const internal::v1::ObserveServicesCommand& command, machine::Proposer::Done done);
  internal::v1::ReportChecksResponse checkers(uint64_t told);

  machine::Proposer& proposer_;
  Executor& executor_;
  const Clock& clock_;
  Presence& presence_;
  const std::function<uint32_t()> feature_level_;
  std::map<std::string, internal::v1::ServiceObservation> gathered_;
  bool flushing_ = false;
  std::map<uint64_t, BootTime> heard_;  // nodes that make checks
};

}  // namespace uccp::discovery
