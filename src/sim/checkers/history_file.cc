#include "sim/checkers/history_file.h"

#include <charconv>
#include <optional>
#include <sstream>
#include <utility>

namespace uccp::sim {
namespace {

using Kind = RegisterOperation::Kind;

constexpr size_t kWords = 8;
constexpr std::string_view kNone = "-";

template <typename Number>
bool parse_number(const std::string& word, Number& out) {
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), out);
  return error == std::errc() && end == word.data() + word.size();
}

std::optional<Kind> parse_kind(const std::string& word) {
  if (word == "put") return Kind::kPut;
  if (word == "get") return Kind::kGet;
  if (word == "cas") return Kind::kCompareAndSet;
  return std::nullopt;
}

// What is wrong with the line, or nothing.
std::optional<std::string> parse_line(const std::vector<std::string>& words, RegisterOperation& out) {
  if (words.size() != kWords) return std::to_string(words.size()) + " words, not " + std::to_string(kWords);
  const auto kind = parse_kind(words[2]);
  if (!kind) return "there is no operation '" + words[2] + "'";
  out.kind = *kind;
  out.done = words[5] == "ok";
  const bool answered = words[5] != "?";
  if (answered && !out.done && (words[5] != "no" || out.kind != Kind::kCompareAndSet)) {
    return "there is no outcome '" + words[5] + "' of '" + words[2] + "'";
  }
  if (!parse_number(words[3], out.value)) return "the value '" + words[3] + "' is no number";
  if (words[4] != kNone && !parse_number(words[4], out.expected)) return "'" + words[4] + "' is no number";
  if (!parse_number(words[6], out.called_us)) return "the time '" + words[6] + "' is no number";
  if (answered == (words[7] == kNone)) return "a time of return goes with an outcome, and with it only";
  if (answered && (!parse_number(words[7], out.returned_us) || out.returned_us < out.called_us)) {
    return "'" + words[7] + "' is no time of return";
  }
  return std::nullopt;
}

}  // namespace

Result<std::map<std::string, std::vector<RegisterOperation>>> parse_history(std::string_view text) {
  std::map<std::string, std::vector<RegisterOperation>> history;
  std::istringstream lines{std::string(text)};
  std::string line;
  for (size_t number = 1; std::getline(lines, line); ++number) {
    std::istringstream split(line);
    std::vector<std::string> words;
    for (std::string word; split >> word;) words.push_back(std::move(word));
    RegisterOperation operation;
    if (const auto wrong = parse_line(words, operation)) {
      return fail(Code::kInvalid, "HISTORY_INVALID", "line " + std::to_string(number) + ": " + *wrong);
    }
    if (operation.kind != Kind::kGet || !operation.unknown()) history[words[1]].push_back(operation);
  }
  return history;
}

}  // namespace uccp::sim
