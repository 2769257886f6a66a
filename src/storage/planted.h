// Planted bugs: known mistakes that the simulator and the checkers have to find, compiled only with UCCP_PLANTED_BUGS.
//
// Names: skip_fsync (the write-ahead log acknowledges without fsync), trust_torn (a record counts
// whatever its checksum says). Set before the threads of a node start.
#pragma once

#include <string>
#include <string_view>

namespace uccp::storage {

#ifdef UCCP_PLANTED_BUGS
// True if plant_bug(name) was called.
bool planted_bug(std::string_view name);
void plant_bug(std::string name);
void clear_planted_bugs();
#else
constexpr bool planted_bug(std::string_view) { return false; }
#endif

}  // namespace uccp::storage
