// Lines from a person, by libedit: history, editing, completion; or from a pipe, byte by byte, so that what a command
// reads itself is left for it.
#pragma once

#include <optional>
#include <string>

#include "cli/io.h"

namespace uccp::cli {

// Nothing at the end of the input.
std::optional<std::string> read_line(const std::string& prompt, const LineInput& input);

}  // namespace uccp::cli
