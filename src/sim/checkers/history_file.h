// Histories of registers that clients of real processes recorded, as text. tests/lib/history.py writes them and says
// what a line holds.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "sim/checkers/linearizability.h"

namespace uccp::sim {

// Operations by register. Reads without an answer are left out: they say nothing. Errors: invalid HISTORY_INVALID with
// the number of the line.
Result<std::map<std::string, std::vector<RegisterOperation>>> parse_history(std::string_view text);

}  // namespace uccp::sim
