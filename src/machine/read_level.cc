#include "machine/read_level.h"

#include <charconv>

namespace uccp::machine {
namespace {

std::unexpected<Status> invalid(std::string_view text) {
  return fail(Status(Code::kInvalid, "CONSISTENCY_INVALID",
                     "the read level '" + std::string(text.substr(0, 64)) +
                         "' is none of linearizable, lease, bounded:MILLISECONDS, session:TOKEN")
                  .with_field("consistency", "unknown read level", "bounded:5000"));
}

bool parse_number(std::string_view text, uint64_t& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

}  // namespace

Result<ReadLevel> parse_read_level(std::string_view text) {
  if (text == "linearizable") return ReadLevel::linearizable();
  if (text == "lease") return ReadLevel{.kind = ReadLevel::Kind::kLease};
  uint64_t number = 0;
  if (text.starts_with("bounded:")) {
    if (!parse_number(text.substr(8), number) || number > 86'400'000) return invalid(text);
    return ReadLevel::bounded(static_cast<int64_t>(number));
  }
  if (!text.starts_with("session:")) return invalid(text);
  ReadLevel level{.kind = ReadLevel::Kind::kSession};
  std::string_view rest = text.substr(8);
  while (!rest.empty()) {
    const size_t comma = rest.find(',');
    const std::string_view pair = rest.substr(0, comma);
    const size_t equals = pair.find('=');
    uint64_t group = 0;
    if (equals == std::string_view::npos || !parse_number(pair.substr(0, equals), group) ||
        !parse_number(pair.substr(equals + 1), number)) {
      return invalid(text);
    }
    level.token[GroupId(group)] = LogIndex(number);
    rest = comma == std::string_view::npos ? std::string_view() : rest.substr(comma + 1);
  }
  return level;
}

std::string session_token(const std::map<GroupId, LogIndex>& token) {
  std::string out = "session:";
  for (const auto& [group, index] : token) {
    if (out.back() != ':') out.push_back(',');
    out.append(std::to_string(group.value)).append("=").append(std::to_string(index.value));
  }
  return out;
}

}  // namespace uccp::machine
