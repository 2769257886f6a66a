#include "call/policy/policy_lexer.h"

#include <array>
#include <charconv>

#include "base/bytes.h"

namespace uccp::call {
namespace {

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

constexpr auto kSigns = std::to_array<std::string_view>(
    {"==", "!=", "<=", ">=", "&&", "||", "(", ")", "[", "]", "{", "}", ",", ";", ".", "<", ">", "!", "-"});

}  // namespace

std::unexpected<Status> policy_error(Place at, const std::string& message) {
  const std::string where =
      "line " + std::to_string(at.line) + ", column " + std::to_string(at.column) + ": " + message;
  return fail(Status(Code::kInvalid, "POLICY_INVALID", where)
                  .with_field("policy.text", where, "permit (principal, action == \"GetTaskStatus\", resource);")
                  .with_help("policies.md"));
}

std::string Token::shown() const {
  switch (kind) {
    case Kind::kEnd: return "the end";
    case Kind::kString: return "the string \"" + text.substr(0, 40) + "\"";
    case Kind::kNumber: return "the number " + text.substr(0, 40);
    default: return "'" + text.substr(0, 40) + "'";
  }
}

void Lexer::advance(size_t count) {
  for (size_t i = 0; i < count; ++i, ++at_) {
    if (text_[at_] == '\n') {
      ++place_.line;
      place_.column = 1;
    } else if ((static_cast<unsigned char>(text_[at_]) & 0xc0) != 0x80) {
      ++place_.column;
    }
  }
}

void Lexer::skip_blanks() {
  while (at_ < text_.size()) {
    const char c = text_[at_];
    if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
      advance(1);
    } else if (text_.substr(at_).starts_with("//")) {
      advance(std::min(text_.find('\n', at_), text_.size()) - at_);
    } else {
      return;
    }
  }
}

Result<Token> Lexer::read_string(Token token) {
  token.kind = Token::Kind::kString;
  advance(1);
  while (at_ < text_.size()) {
    const char c = text_[at_];
    if (c == '"') {
      advance(1);
      return token;
    }
    if (c == '\n') break;
    if (c != '\\') {
      token.text.push_back(c);
      advance(1);
      continue;
    }
    const char escaped = at_ + 1 < text_.size() ? text_[at_ + 1] : '\0';
    if (escaped != '"' && escaped != '\\' && escaped != 'n' && escaped != 't') {
      return policy_error(place_, "after a backslash only \", \\, n and t are possible");
    }
    token.text.push_back(escaped == 'n' ? '\n' : escaped == 't' ? '\t' : escaped);
    advance(2);
  }
  return policy_error(token.at, "this string has no end");
}

Result<Token> Lexer::read() {
  skip_blanks();
  Token token;
  token.at = place_;
  if (at_ >= text_.size()) return token;
  const char c = text_[at_];
  if (c == '"') return read_string(std::move(token));
  if (is_letter(c)) {
    size_t end = at_;
    while (end < text_.size() && (is_letter(text_[end]) || is_digit(text_[end]))) ++end;
    token.kind = Token::Kind::kWord;
    token.text = text_.substr(at_, end - at_);
    advance(end - at_);
    return token;
  }
  if (is_digit(c)) {
    size_t end = at_;
    while (end < text_.size() && (is_digit(text_[end]) || text_[end] == '.')) ++end;
    token.kind = Token::Kind::kNumber;
    token.text = text_.substr(at_, end - at_);
    const auto [stop, error] = std::from_chars(token.text.data(), token.text.data() + token.text.size(), token.number);
    if (error != std::errc() || stop != token.text.data() + token.text.size()) {
      return policy_error(token.at, "'" + token.text.substr(0, 40) + "' is no number");
    }
    advance(end - at_);
    return token;
  }
  for (const std::string_view sign : kSigns) {
    if (!text_.substr(at_).starts_with(sign)) continue;
    token.kind = Token::Kind::kSign;
    token.text = sign;
    advance(sign.size());
    return token;
  }
  return policy_error(place_, "there is a character that means nothing here");
}

Result<Token> Lexer::peek() {
  if (!has_peeked_) {
    UCCP_TRY(peeked_, read());
    has_peeked_ = true;
  }
  return peeked_;
}

Result<Token> Lexer::next() {
  if (!has_peeked_) return read();
  has_peeked_ = false;
  return std::move(peeked_);
}

}  // namespace uccp::call
