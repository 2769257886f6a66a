// The replicated state of functions. Pure: runs on the loop, inside apply.
//
// Invariants: a version never changes; the newest version of a name is the one of its versions that was stored last;
// the count of a namespace is the number of its rows.
#pragma once

#include <string>

#include "machine/domain.h"
#include "services/function_types.h"

namespace uccp::compute {

inline constexpr std::string_view kDomain = "compute";

class ComputeState final : public machine::Domain {
 public:
  std::string_view name() const override { return kDomain; }
  std::map<std::string, machine::ApplyFunction, std::less<>> commands() override;
};

std::string version_key(std::string_view name, std::string_view version);
// The version, or the newest if it is empty. Errors: not_found FUNCTION_NOT_FOUND.
Result<internal::v1::FunctionRow> find_function(const machine::KeyReader& state, const machine::Scope& scope,
                                                const std::string& name, const std::string& version);

}  // namespace uccp::compute
