// The planted bugs of all layers by name: docs/simulation.md.
#pragma once

#include <string>

namespace uccp::sim {

// Switches a bug on; an empty name does nothing. Answers why it cannot, or nothing. Before anything runs.
std::string plant(const std::string& name);

}  // namespace uccp::sim
