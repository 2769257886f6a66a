// Planted bugs: known mistakes that the simulator and the checkers have to find, compiled only with UCCP_PLANTED_BUGS.
//
// Names: drop_dedup (a repeated command runs again), apply_twice (now and then a command runs twice), no_fence (the
// outcome of an epoch that has passed counts). Set before anything applies.
#pragma once

#include <string>
#include <string_view>

namespace uccp::machine {

#ifdef UCCP_PLANTED_BUGS
// True if plant_bug(name) was called.
bool planted_bug(std::string_view name);
void plant_bug(std::string name);
#else
constexpr bool planted_bug(std::string_view) { return false; }
#endif

}  // namespace uccp::machine
