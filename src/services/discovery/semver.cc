#include "services/discovery/semver.h"

#include <algorithm>
#include <charconv>

namespace uccp::discovery {
namespace {

constexpr size_t kAlternativesMax = 16;
constexpr size_t kComparatorsMax = 32;

bool is_digits(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

bool is_identifiers(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '.';
  });
}

// Numbers numerically and below words, words by bytes.
std::strong_ordering compare_identifier(std::string_view a, std::string_view b) {
  const bool a_number = is_digits(a);
  const bool b_number = is_digits(b);
  if (a_number != b_number) return a_number ? std::strong_ordering::less : std::strong_ordering::greater;
  // Numbers may be longer than 64 bits: without leading zeros the longer one is greater.
  if (a_number && a.size() != b.size()) return a.size() <=> b.size();
  return a.compare(b) <=> 0;
}

std::strong_ordering compare_prerelease(std::string_view a, std::string_view b) {
  // A release comes after its prereleases.
  if (a.empty() || b.empty()) return a.empty() <=> b.empty();
  while (!a.empty() && !b.empty()) {
    const size_t a_dot = std::min(a.find('.'), a.size());
    const size_t b_dot = std::min(b.find('.'), b.size());
    if (const auto order = compare_identifier(a.substr(0, a_dot), b.substr(0, b_dot)); order != 0) return order;
    a.remove_prefix(std::min(a.size(), a_dot + 1));
    b.remove_prefix(std::min(b.size(), b_dot + 1));
  }
  return a.size() <=> b.size();
}

// A version of which the last numbers may be missing or wildcards.
struct Partial {
  SemanticVersion version;
  int numbers = 0;  // how many were given: 0 ("*") to 3
};

std::optional<Partial> parse_partial(std::string_view text) {
  Partial partial;
  if (text.starts_with('v') || text.starts_with('V')) text.remove_prefix(1);
  text = text.substr(0, text.find('+'));
  const size_t dash = text.find('-');
  std::string_view numbers = text.substr(0, dash);
  uint64_t* const places[] = {&partial.version.major, &partial.version.minor, &partial.version.patch};
  bool wild = false;
  for (int i = 0;; ++i) {
    if (i == 3) return std::nullopt;
    const size_t dot = numbers.find('.');
    const std::string_view number = numbers.substr(0, dot);
    if (number == "x" || number == "X" || number == "*") {
      wild = true;
    } else {
      const auto parsed = std::from_chars(number.data(), number.data() + number.size(), *places[i]);
      if (wild || !is_digits(number) || parsed.ec != std::errc()) return std::nullopt;
      partial.numbers = i + 1;
    }
    if (dot == std::string_view::npos) break;
    numbers.remove_prefix(dot + 1);
  }
  if (dash != std::string_view::npos) {
    if (wild || partial.numbers != 3 || !is_identifiers(text.substr(dash + 1))) return std::nullopt;
    partial.version.prerelease = text.substr(dash + 1);
  }
  return partial;
}

// The first version behind all that share the first `numbers` numbers; "-0" keeps its prereleases out as well.
SemanticVersion behind(const SemanticVersion& v, int numbers) {
  SemanticVersion next;
  next.prerelease = "0";
  next.major = v.major + (numbers <= 1 ? 1 : 0);
  if (numbers >= 2) next.minor = v.minor + (numbers == 2 ? 1 : 0);
  if (numbers >= 3) next.patch = v.patch + 1;
  return next;
}

}  // namespace

std::strong_ordering SemanticVersion::operator<=>(const SemanticVersion& o) const {
  if (major != o.major) return major <=> o.major;
  if (minor != o.minor) return minor <=> o.minor;
  if (patch != o.patch) return patch <=> o.patch;
  return compare_prerelease(prerelease, o.prerelease);
}

std::optional<SemanticVersion> parse_version(std::string_view text) {
  auto partial = parse_partial(text);
  if (!partial || partial->numbers == 0 || text.find_first_of("xX*") < text.find_first_of("-+")) return std::nullopt;
  return std::move(partial->version);
}

bool VersionRange::parse_term(std::string_view term, Alternative& out) {
  using Op = Comparator::Operator;
  const size_t op_size = std::min(term.find_first_not_of("^~<>="), term.size());
  const std::string_view op = term.substr(0, op_size);
  const auto partial = parse_partial(term.substr(op_size));
  if (!partial) return false;
  const SemanticVersion& v = partial->version;
  const int numbers = partial->numbers;
  const auto between = [&](int fixed) {
    out.push_back({Op::kGreaterEqual, v});
    if (fixed > 0) out.push_back({Op::kLess, behind(v, fixed)});
    return true;
  };
  if (op.empty() || op == "=") {
    if (numbers < 3) return between(numbers);
    out.push_back({Op::kEqual, v});
    return true;
  }
  // ^ keeps the first number that is not zero, ~ the minor number.
  if (op == "^")
    return between(v.major > 0 || numbers <= 1 ? std::min(numbers, 1) : v.minor > 0 || numbers == 2 ? 2 : 3);
  if (op == "~" || op == "~>") return between(std::min(numbers, 2));
  if (op == ">=") {
    out.push_back({Op::kGreaterEqual, v});
  } else if (op == "<") {
    out.push_back({Op::kLess, v});
    // "<2" means before all of 2, its prereleases too.
    if (numbers < 3) out.back().version.prerelease = "0";
  } else if (op == ">") {
    // ">1.2" means behind all of 1.2.
    if (numbers < 3) out.push_back({Op::kGreaterEqual, behind(v, numbers)});
    else out.push_back({Op::kGreater, v});
  } else if (op == "<=") {
    if (numbers < 3) out.push_back({Op::kLess, behind(v, numbers)});
    else out.push_back({Op::kLessEqual, v});
  } else {
    return false;
  }
  return true;
}

Result<VersionRange> VersionRange::parse(std::string_view text) {
  VersionRange range;
  range.text_ = text;
  const bool is_range = text.find_first_of("^~<>=|*, ") != std::string_view::npos;
  const auto wrong = [&] {
    return fail(
        Status(Code::kInvalid, "VERSION_INVALID", "'" + std::string(text) + "' is no version and no version range")
            .with_field("version", "is no version and no version range", "^1.2 || >=2.1 <3"));
  };
  size_t comparators = 0;
  for (std::string_view rest = text;;) {
    const size_t bar = rest.find("||");
    std::string_view terms = rest.substr(0, bar);
    Alternative alternative;
    while (!terms.empty()) {
      // A space may stand between an operator and its version.
      const size_t begin = terms.find_first_not_of(" ,");
      if (begin == std::string_view::npos) break;
      terms.remove_prefix(begin);
      const size_t op = std::min(terms.find_first_not_of("^~<>="), terms.size());
      const size_t version = std::min(terms.find_first_not_of(' ', op), terms.size());
      const size_t end = std::min(terms.find_first_of(" ,", version), terms.size());
      const std::string term = std::string(terms.substr(0, op)).append(terms.substr(version, end - version));
      terms.remove_prefix(end);
      if (!parse_term(term, alternative)) {
        if (is_range) return wrong();
        // Not semantic: it can only be equal.
        return range;
      }
    }
    comparators += alternative.size();
    range.alternatives_.push_back(std::move(alternative));
    if (comparators > kComparatorsMax || range.alternatives_.size() > kAlternativesMax) return wrong();
    if (bar == std::string_view::npos) return range;
    rest.remove_prefix(bar + 2);
  }
}

bool VersionRange::holds(const Alternative& alternative, const SemanticVersion& version) {
  using Op = Comparator::Operator;
  bool prerelease_named = version.prerelease.empty();
  for (const Comparator& c : alternative) {
    const auto order = version <=> c.version;
    const bool good = c.op == Op::kLess           ? order < 0
                      : c.op == Op::kLessEqual    ? order <= 0
                      : c.op == Op::kEqual        ? order == 0
                      : c.op == Op::kGreaterEqual ? order >= 0
                                                  : order > 0;
    if (!good) return false;
    // "0" is our own mark behind a range, not a prerelease that someone named.
    prerelease_named |= !c.version.prerelease.empty() && c.version.prerelease != "0" &&
                        c.version.major == version.major && c.version.minor == version.minor &&
                        c.version.patch == version.patch;
  }
  return prerelease_named;
}

bool VersionRange::matches(std::string_view version) const {
  if (version == text_) return true;
  if (alternatives_.empty()) return false;
  const auto parsed = parse_version(version);
  return parsed && std::ranges::any_of(alternatives_, [&](const Alternative& a) { return holds(a, *parsed); });
}

}  // namespace uccp::discovery
