#include "services/audit/audit_anchor.h"

#include <charconv>

#include "base/bytes.h"

namespace uccp::audit {

std::string to_text(const Anchor& anchor) {
  return anchor.group + "-" + std::to_string(anchor.number) + ":" + to_hex(anchor.hash);
}

std::optional<Anchor> parse_anchor(std::string_view text) {
  Anchor anchor;
  const size_t colon = text.find(':');
  const size_t dash = text.substr(0, colon).rfind('-');
  if (colon == std::string_view::npos || dash == std::string_view::npos) return std::nullopt;
  anchor.group = text.substr(0, dash);
  const auto [end, error] = std::from_chars(text.data() + dash + 1, text.data() + colon, anchor.number);
  const auto hash = from_hex(text.substr(colon + 1));
  if (error != std::errc() || end != text.data() + colon || !hash) return std::nullopt;
  anchor.hash = *hash;
  return anchor;
}

}  // namespace uccp::audit
