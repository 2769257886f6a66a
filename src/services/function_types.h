// What functions and the tasks that call them have in common: tables and names.
#pragma once

#include "machine/table.h"
#include "services/function_names.h"
#include "uccp/internal/v1/compute_state.pb.h"

namespace uccp::functions {

// Tables of the work group; the numbers are part of the on-disk format.
// (name, version) of each version.
inline constexpr machine::Table<internal::v1::FunctionRow> kVersions(44);
// name: its newest version.
inline constexpr machine::BytesTable kNewest(45);
// "versions": u64 number of versions in the namespace.
inline constexpr machine::BytesTable kVersionCounts(46);

// Level at which nodes know functions.
inline constexpr uint32_t kLevel = 2;

}  // namespace uccp::functions
