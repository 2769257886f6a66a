// The replicated definitions of quotas. Pure: runs on the loop, inside apply.
//
// Invariants: each parent and template that a quota names exists, and following parents ends; so deleting what is named
// is refused.
#pragma once

#include "machine/domain.h"
#include "services/work_types.h"

namespace uccp::quotas {

class QuotasState final : public machine::Domain {
 public:
  std::string_view name() const override { return "quotas"; }
  std::map<std::string, machine::ApplyFunction, std::less<>> commands() override;

 private:
  static machine::ApplyResult set(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult charge(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult count_requests(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult remove(machine::ApplyContext& context, std::string_view payload);
};

}  // namespace uccp::quotas
