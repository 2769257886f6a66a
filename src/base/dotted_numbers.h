// Whole numbers with dots between them, "16.7.0": cursors, confirmations and the like, as clients send them back.
#pragma once

#include <charconv>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace uccp {

// True if `text` is exactly as many numbers as `out` has places; on false what is in `out` is of no use.
inline bool parse_dotted_numbers(std::string_view text, std::span<uint64_t> out) {
  const char* at = text.data();
  const char* const end = at + text.size();
  for (size_t i = 0; i < out.size(); ++i) {
    if (i > 0 && (at == end || *at++ != '.')) return false;
    const auto [next, error] = std::from_chars(at, end, out[i]);
    if (error != std::errc()) return false;
    at = next;
  }
  return at == end;
}

inline std::string dotted_numbers(std::span<const uint64_t> numbers) {
  std::string text;
  for (const uint64_t number : numbers) text += (text.empty() ? "" : ".") + std::to_string(number);
  return text;
}

}  // namespace uccp
