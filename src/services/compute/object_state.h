// The replicated state of object stores and objects. Pure: runs on the loop, inside apply.
//
// Invariants: a version of an object never changes; without versioning an object has one version; the counts of a store
// are those of its rows; what is over is never answered, and goes by a command of the leader.
#pragma once

#include "machine/domain.h"
#include "services/object_types.h"

namespace uccp::compute {

std::map<std::string, machine::ApplyFunction, std::less<>> object_commands();

// The store; the default one is there before anything was stored. Errors: not_found OBJECT_STORE_NOT_FOUND.
Result<v1::ObjectStore> find_store(const machine::KeyReader& state, const machine::Scope& scope,
                                   const std::string& name);

}  // namespace uccp::compute
