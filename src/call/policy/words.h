// Matching of names: patterns with `*`, and the word that was probably meant.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace uccp::call {

// True if `text` is `pattern`, in which `*` stands for any characters, also none. Linear in time.
bool glob_matches(std::string_view pattern, std::string_view text);

// Levenshtein distance; upper and lower case are the same.
size_t edit_distance(std::string_view a, std::string_view b);

// The candidate with the fewest different letters, if these are few enough for a slip; else empty.
std::string nearest_word(std::string_view word, std::span<const std::string> candidates);

}  // namespace uccp::call
