#include "server/backfill_choice.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace uccp::server {
namespace {

constexpr size_t kBackfillRulesMax = 1'000;

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

std::optional<tasks::Backfill> way_named(std::string_view word) {
  if (word == "easy") return tasks::Backfill::kEasy;
  if (word == "conservative") return tasks::Backfill::kConservative;
  return std::nullopt;
}

bool is_name(std::string_view text) {
  return text == "*" || (!text.empty() && std::ranges::all_of(text, [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
                  c == '-';
         }));
}

std::unexpected<Status> wrong(std::string_view part, const std::string& what) {
  return fail(Code::kInvalid, "CONFIG_INVALID",
              "backfill: '" + std::string(part) + "' " + what +
                  "; write easy or conservative, and behind it exceptions such as research/nightly:conservative");
}

Result<tasks::BackfillRule> parse_rule(std::string_view part) {
  const size_t colon = part.find(':'), slash = part.find('/');
  if (colon == std::string_view::npos || slash == std::string_view::npos || slash > colon)
    return wrong(part, "is not NAMESPACE/QUEUE:WAY");
  const auto way = way_named(trimmed(part.substr(colon + 1)));
  if (!way) return wrong(part, "names neither easy nor conservative");
  tasks::BackfillRule rule{std::string(trimmed(part.substr(0, slash))),
                           std::string(trimmed(part.substr(slash + 1, colon - slash - 1))), *way};
  if (!is_name(rule.name_space) || !is_name(rule.queue))
    return wrong(part, "has a namespace or a queue that is neither a name nor *");
  return rule;
}

}  // namespace

Result<BackfillChoice> parse_backfill(std::string_view text) {
  BackfillChoice choice;
  bool first = true;
  for (std::string_view rest = text; first || !rest.empty();) {
    const size_t comma = std::min(rest.find(','), rest.size());
    const std::string_view part = trimmed(rest.substr(0, comma));
    rest.remove_prefix(std::min(comma + 1, rest.size()));
    if (std::exchange(first, false)) {
      const auto way = way_named(part);
      if (!way) return wrong(part, "is none of easy, conservative");
      choice.backfill = *way;
      continue;
    }
    if (choice.rules.size() == kBackfillRulesMax) return wrong(part, "is beyond the 1000th exception");
    UCCP_TRY(tasks::BackfillRule rule, parse_rule(part));
    choice.rules.push_back(std::move(rule));
  }
  return choice;
}

}  // namespace uccp::server
