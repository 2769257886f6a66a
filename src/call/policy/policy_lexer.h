// Words of the policy language with their places. Private to this folder.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace uccp::call {

struct Place {
  int line = 1;
  int column = 1;
};

// Errors of all parts: invalid POLICY_INVALID with the place in front.
std::unexpected<Status> policy_error(Place at, const std::string& message);

struct Token {
  enum class Kind : uint8_t { kEnd, kWord, kString, kNumber, kSign };
  Kind kind = Kind::kEnd;
  std::string text;  // of a string: what it stands for
  double number = 0;
  Place at;

  bool is(std::string_view sign_or_word) const {
    return (kind == Kind::kWord || kind == Kind::kSign) && text == sign_or_word;
  }
  // For messages: "'&&'", "the end", "the string \"a\"".
  std::string shown() const;
};

class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) {}
  // The next token without taking it.
  Result<Token> peek();
  Result<Token> next();

 private:
  Result<Token> read();
  Result<Token> read_string(Token token);
  void skip_blanks();
  void advance(size_t count);

  std::string_view text_;
  size_t at_ = 0;
  Place place_;
  bool has_peeked_ = false;
  Token peeked_;
};

}  // namespace uccp::call
