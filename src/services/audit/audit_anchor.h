// Anchors: a record of a trail with its hash, which covers all records before it. "core-17:9f86…".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace uccp::audit {

struct Anchor {
  std::string group;
  uint64_t number = 0;
  std::string hash;  // raw bytes
};
std::string to_text(const Anchor& anchor);
std::optional<Anchor> parse_anchor(std::string_view text);

}  // namespace uccp::audit
