#include "cli/paint.h"

#include <algorithm>
#include <array>

namespace uccp::cli {
namespace {

constexpr std::string_view kReset = "\x1b[0m";
constexpr std::string_view kBold = "\x1b[1m";
constexpr std::string_view kRed = "\x1b[31m";
constexpr std::string_view kGreen = "\x1b[32m";
constexpr std::string_view kYellow = "\x1b[33m";
constexpr std::string_view kCyan = "\x1b[36m";

struct Word {
  std::string_view text;
  std::string_view color;
};

// States of the contract by what they mean for whoever looks; others stay plain.
constexpr auto kWords = std::to_array<Word>({
    {"READY", kGreen},     {"HEALTHY", kGreen},   {"RUNNING", kGreen},    {"SUCCEEDED", kGreen},  {"ACTIVE", kGreen},
    {"LEADER", kGreen},    {"PENDING", kYellow},  {"QUEUED", kYellow},    {"STOPPING", kYellow},  {"DRAINING", kYellow},
    {"CORDONED", kYellow}, {"DEGRADED", kYellow}, {"CANCELLED", kYellow}, {"SUSPENDED", kYellow}, {"SUSPECT", kYellow},
    {"FAILED", kRed},      {"TIMED_OUT", kRed},   {"UNHEALTHY", kRed},    {"LOST", kRed},         {"OFFLINE", kRed},
    {"QUARANTINED", kRed}, {"DOWN", kRed},
});

std::string in(std::string_view color, std::string_view text) {
  return std::string(color) + std::string(text) + std::string(kReset);
}

}  // namespace

bool colors_allowed(const Settings& settings, const Io& io) {
  return !settings.no_color && io.env("NO_COLOR").value_or("").empty();
}

bool Paint::on() const { return io_.out_is_terminal && colors_allowed(settings_, io_); }

std::string Paint::heading(const std::string& text) const { return on() && !text.empty() ? in(kBold, text) : text; }

std::string Paint::cell(const std::string& text) const {
  if (!on()) return text;
  const auto* word = std::ranges::find(kWords, std::string_view(text), &Word::text);
  return word == kWords.end() ? text : in(word->color, text);
}

std::string Paint::diff(const std::string& text) const {
  if (!on()) return text;
  std::string out;
  for (std::string_view rest = text; !rest.empty();) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    const std::string_view color = line.starts_with("---") || line.starts_with("+++") ? kBold
                                   : line.starts_with('-')                            ? kRed
                                   : line.starts_with('+')                            ? kGreen
                                   : line.starts_with("@@")                           ? kCyan
                                                                                      : std::string_view();
    out += color.empty() ? std::string(line) : in(color, line);
    out.push_back('\n');
  }
  return out;
}

}  // namespace uccp::cli
