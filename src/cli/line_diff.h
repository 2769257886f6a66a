// What changed between two texts, line by line, as `diff -u` shows it.
#pragma once

#include <string>
#include <string_view>

namespace uccp::cli {

// Lines that begin with ' ', '-' or '+'; unchanged ones further than `context` lines from a change are left out, with
// "@@" in their place. Empty if the texts are equal. Quadratic in the number of lines that differ: for documents.
std::string line_diff(std::string_view before, std::string_view after, size_t context = 3);

}  // namespace uccp::cli
