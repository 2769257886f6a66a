// Semantic versions (https://semver.org, 2.0.0) and ranges of them in the notation of npm's node-semver.
//
// Versions are read leniently: a leading "v" and missing minor and patch numbers are accepted ("v1.2" is 1.2.0). Pure.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace uccp::discovery {

struct SemanticVersion {
  uint64_t major = 0;
  uint64_t minor = 0;
  uint64_t patch = 0;
  std::string prerelease;  // "rc.1"; empty for a release. Build metadata is dropped: it does not order.

  std::strong_ordering operator<=>(const SemanticVersion& other) const;
  bool operator==(const SemanticVersion& other) const { return (*this <=> other) == 0; }
};
std::optional<SemanticVersion> parse_version(std::string_view text);

// "^1.2 || >=2.1,<3 || 4.x": alternatives joined by ||, in each all comparators (joined by commas or spaces) must hold.
// ^ ~ > >= < <= = and x-ranges; a bare version is exact if complete, else an x-range. A prerelease is in a range only
// if a comparator of that alternative names a prerelease of the same version.
class VersionRange {
 public:
  // Errors: invalid VERSION_INVALID.
  static Result<VersionRange> parse(std::string_view text);

  // A text that is no semantic version is in no range, but is always equal to itself.
  bool matches(std::string_view version) const;

 private:
  struct Comparator {
    enum class Operator : uint8_t { kLess, kLessEqual, kEqual, kGreaterEqual, kGreater };
    Operator op;
    SemanticVersion version;
  };
  using Alternative = std::vector<Comparator>;
  static bool parse_term(std::string_view term, Alternative& out);
  static bool holds(const Alternative& alternative, const SemanticVersion& version);

  std::string text_;
  std::vector<Alternative> alternatives_;
};

}  // namespace uccp::discovery
