// Versions of drivers and the like, as they are compared: up to four numbers with dots between them.
#pragma once

#include <array>
#include <charconv>
#include <cstdint>
#include <string_view>

namespace uccp {

// Up to the first thing that is no number; what is missing is zero, so "535" and "535.0" are equal.
using DottedVersion = std::array<uint32_t, 4>;

inline DottedVersion dotted_version(std::string_view text) {
  DottedVersion version{};
  for (uint32_t& part : version) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), part);
    if (error != std::errc()) break;
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    if (text.empty() || text.front() != '.') break;
    text.remove_prefix(1);
  }
  return version;
}

}  // namespace uccp
