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
#include "uccp/internal/v1/node.pb.h"

namespace uccp::discovery {

class Observations : public std::enable_shared_from_this<Observations> {
 public:
  // `feature_level`: that of the cluster; none: the newest.
  static std::shared_ptr<Observations> make(machine::Proposer& proposer, Executor& executor, const Clock& clock,
                                            std::function<uint32_t()> feature_level = {}) {
    return std::shared_ptr<Observations>(new Observations(proposer, executor, clock, std::move(feature_level)));
  }

  // Any thread. Later findings about an instance replace earlier ones, field by field.
  void add(internal::v1::ServiceObservation observation);
  // A node tells what its checks found. `done` comes when that is committed, with the nodes that make checks now.
  using Told = std::move_only_function<void(Result<internal::v1::ReportChecksResponse>)>;
  void report(internal::v1::ReportChecksRequest request, Told done);

 private:
  Observations(machine::Proposer& proposer, Executor& executor, const Clock& clock, std::function<uint32_t()> level)
      : proposer_(proposer), executor_(executor), clock_(clock), feature_level_(std::move(level)) {}
  void flush();
  void propose(const internal::v1::ObserveServicesCommand& command, machine::Proposer::Done done);
  internal::v1::ReportChecksResponse checkers(uint64_t told);

  machine::Proposer& proposer_;
  Executor& executor_;
  const Clock& clock_;
  const std::function<uint32_t()> feature_level_;
  std::map<std::string, internal::v1::ServiceObservation> gathered_;
  bool flushing_ = false;
  std::map<uint64_t, BootTime> heard_;  // nodes that make checks
};

}  // namespace uccp::discovery
