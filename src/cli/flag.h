// Flags and the parsing of a command line against lists of them.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace uccp::cli {

struct Flag {
  std::vector<std::string> names;  // kebab case, without dashes; the first is the one that help shows
  char letter = 0;                 // "-o"; 0: none
  bool is_switch = false;          // takes no value unless written --name=false; --no-name is false
  std::string value_name;          // "DURATION", for help
  std::string help;
  std::vector<std::string> choices;  // all values that it takes; empty: not a matter of words
  size_t depth = 0;                  // nesting of a request field; help shows the shallow ones
  std::function<Status(std::string_view value)> set;
};

struct ParseRule {
  // After this many positionals everything is positional: the command of a task keeps its own flags.
  size_t verbatim_after = SIZE_MAX;
  // Stop at the first positional and leave the rest: for the words in front of the command.
  bool stop_at_positional = false;
};

// Parses `args` against `lists`, the first list that knows a name wins, and answers the positionals (with
// stop_at_positional: the rest). Errors: invalid USAGE, with the nearest flag as a suggestion; what a setter answers.
Result<std::vector<std::string>> parse_flags(std::span<const std::string> args,
                                             std::span<const std::vector<Flag>* const> lists,
                                             const ParseRule& rule = {});

// "invalid USAGE": the command line itself is wrong; exit code 2.
Status usage_error(std::string message);

}  // namespace uccp::cli
