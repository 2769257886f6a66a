// The replicated state of tasks: rows, dependencies, outcomes. Pure: runs on the loop, inside apply.
//
// Invariants: a terminal task never changes again, except that it is pruned or resumed by a caller; an outcome counts
// once, only from the present epoch of its worker and for the attempt that the task waits for; a task with unfinished
// dependencies is PENDING.
#pragma once

#include <string>

#include "machine/domain.h"
#include "services/work_types.h"

namespace uccp::tasks {

class TasksState final : public machine::Domain {
 public:
  std::string_view name() const override { return "tasks"; }
  std::map<std::string, machine::ApplyFunction, std::less<>> commands() override;

 private:
  static machine::ApplyResult schedule(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult cancel(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult outcomes(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult set_priority(machine::ApplyContext& context, std::string_view payload);
  // Of tasks_life.cc.
  static machine::ApplyResult schedule_graph(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult resume(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult deadline(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult checkpoint(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult stop_gangs(machine::ApplyContext& context, std::string_view payload);
  // Of tasks_fire.cc.
  static machine::ApplyResult fire(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult prune(machine::ApplyContext& context, std::string_view payload);
};

}  // namespace uccp::tasks
