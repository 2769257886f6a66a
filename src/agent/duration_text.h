// Durations as they stand in flags.
//
// Pure function; callable from any thread.
#pragma once

#include <cstdint>
#include <string>

namespace uccp::agent {

// "90s", "5m", "1h", "250ms", in milliseconds; 0 if it is empty, -1 if it is none of these.
int64_t parse_duration_ms(const std::string& text);

}  // namespace uccp::agent
