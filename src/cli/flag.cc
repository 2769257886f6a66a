#include "cli/flag.h"

#include "cli/text.h"

namespace uccp::cli {
namespace {

using Lists = std::span<const std::vector<Flag>* const>;

const Flag* by_name(Lists lists, std::string_view name) {
  for (const std::vector<Flag>* list : lists) {
    for (const Flag& flag : *list) {
      for (const std::string& candidate : flag.names) {
        if (candidate == name) return &flag;
      }
    }
  }
  return nullptr;
}

const Flag* by_letter(Lists lists, char letter) {
  for (const std::vector<Flag>* list : lists) {
    for (const Flag& flag : *list) {
      if (flag.letter == letter) return &flag;
    }
  }
  return nullptr;
}

Status unknown_flag(Lists lists, std::string_view shown, std::string_view name) {
  std::vector<std::string> names;
  for (const std::vector<Flag>* list : lists) {
    for (const Flag& flag : *list) names.insert(names.end(), flag.names.begin(), flag.names.end());
  }
  const std::string near = nearest(name, names);
  std::string message = "unknown flag " + std::string(shown);
  if (!near.empty()) message += "; did you mean --" + near + "?";
  return usage_error(std::move(message));
}

// One token as a flag and, if it holds one, the value.
struct Token {
  const Flag* flag = nullptr;
  std::string shown;
  bool has_value = false;
  std::string value;
};

Result<Token> read_long(Lists lists, std::string_view arg) {
  Token token;
  const size_t equals = arg.find('=');
  token.shown = std::string(arg.substr(0, equals));
  const std::string name = to_kebab(std::string_view(token.shown).substr(2));
  if (equals != std::string_view::npos) {
    token.has_value = true;
    token.value = std::string(arg.substr(equals + 1));
  }
  token.flag = by_name(lists, name);
  if (token.flag == nullptr && name.starts_with("no-") && !token.has_value) {
    const Flag* positive = by_name(lists, std::string_view(name).substr(3));
    if (positive != nullptr && positive->is_switch) {
      token.flag = positive;
      token.has_value = true;
      token.value = "false";
    }
  }
  if (token.flag == nullptr) return std::unexpected(unknown_flag(lists, token.shown, name));
  return token;
}

Result<Token> read_short(Lists lists, std::string_view arg) {
  Token token;
  token.shown = std::string(arg.substr(0, 2));
  token.flag = by_letter(lists, arg[1]);
  if (token.flag == nullptr) return std::unexpected(unknown_flag(lists, token.shown, arg.substr(1)));
  if (arg.size() > 2) {
    if (token.flag->is_switch) {
      return std::unexpected(
          usage_error("write switches one by one: " + token.shown + " -" + std::string(arg.substr(2))));
    }
    token.has_value = true;
    token.value = std::string(arg.substr(arg[2] == '=' ? 3 : 2));
  }
  return token;
}

}  // namespace

Status usage_error(std::string message) { return Status(Code::kInvalid, "USAGE", std::move(message)); }

Result<std::vector<std::string>> parse_flags(std::span<const std::string> args, Lists lists, const ParseRule& rule) {
  std::vector<std::string> words;
  for (size_t i = 0; i < args.size(); ++i) {
    const std::string& arg = args[i];
    const bool is_flag = arg.size() > 1 && arg[0] == '-' && words.size() < rule.verbatim_after;
    if (!is_flag) {
      if (rule.stop_at_positional) {
        words.assign(args.begin() + static_cast<ptrdiff_t>(i), args.end());
        return words;
      }
      words.push_back(arg);
      continue;
    }
    if (arg == "--") {
      words.insert(words.end(), args.begin() + static_cast<ptrdiff_t>(i) + 1, args.end());
      return words;
    }
    // A negative number is an argument, not a flag.
    if (arg[1] >= '0' && arg[1] <= '9') {
      words.push_back(arg);
      continue;
    }
    UCCP_TRY(Token token, arg[1] == '-' ? read_long(lists, arg) : read_short(lists, arg));
    if (!token.has_value && token.flag->is_switch) {
      token.value = "true";
    } else if (!token.has_value) {
      if (i + 1 >= args.size()) return std::unexpected(usage_error("flag " + token.shown + " needs a value"));
      token.value = args[++i];
    }
    UCCP_RETURN_IF_ERROR(token.flag->set(token.value));
  }
  return words;
}

}  // namespace uccp::cli
