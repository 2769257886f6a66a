// What the checkers are told about commands as nodes apply them.
#pragma once

#include <string_view>

#include "machine/domain.h"
#include "sim/checkers/checkers.h"
#include "sim/sim_executor.h"

namespace uccp::sim {

class Observation {
 public:
  // Both must outlive this.
  Observation(SimScheduler& scheduler, Checkers& checkers) : scheduler_(scheduler), checkers_(checkers) {}

  // `command` ran on `node`; it is part of the trace.
  void applied(NodeId node, GroupId group, machine::ApplyContext& context, std::string_view command,
               std::string_view payload, const machine::ApplyResult& result);

 private:
  void note_request(GroupId group, const machine::ApplyContext& context);
  void note_discovery(LogIndex index, std::string_view command, std::string_view payload, const std::string& result);
  void note_permits(machine::ApplyContext& context);
  void note_kv(std::string_view command, std::string_view payload, const std::string& result);
  void note_work(machine::ApplyContext& context, std::string_view command, std::string_view payload,
                 const std::string& result);
  void note_stopped_gangs(machine::ApplyContext& context, std::string_view payload);
  void note_outcomes(machine::ApplyContext& context, std::string_view payload, const std::string& result);

  SimScheduler& scheduler_;
  Checkers& checkers_;
};

}  // namespace uccp::sim
