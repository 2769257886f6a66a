// Versions and ranges of versions: any text, in any combination.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "services/discovery/semver.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t line = std::min(text.find('\n'), text.size());
  const std::string_view range_text = text.substr(0, line), version = text.substr(std::min(line + 1, text.size()));
  const auto parsed = uccp::discovery::parse_version(version);
  if (parsed) UCCP_CHECK(*parsed == *parsed, "a version equals itself");
  if (const auto range = uccp::discovery::VersionRange::parse(range_text)) (void)range->matches(version);
  return 0;
}
