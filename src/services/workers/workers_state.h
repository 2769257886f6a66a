// The replicated registry of workers: descriptions, epochs, cordons. Pure: runs on the loop, inside apply.
//
// Invariant: a worker's epoch only grows; it grows with each new agent process and each fence, so that nothing that ran
// before can report an outcome afterwards.
#pragma once

#include "machine/domain.h"
#include "services/work_types.h"

namespace uccp::workers {

class WorkersState final : public machine::Domain {
 public:
  std::string_view name() const override { return "workers"; }
  std::map<std::string, machine::ApplyFunction, std::less<>> commands() override;

 private:
  static machine::ApplyResult hello(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult fence(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult note_scaling(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult declare(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult update(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult drain(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult deregister(machine::ApplyContext& context, std::string_view payload);
};

}  // namespace uccp::workers
