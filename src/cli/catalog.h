// Catalog: the commands of the contract, by noun and verb, with the other words that they answer to.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "call/contract.h"
#include "cli/flag.h"

namespace uccp::cli {

struct Command {
  std::string noun;
  std::string verb;
  const call::Method* method = nullptr;
};

class Catalog {
 public:
  explicit Catalog(const call::Contract& contract);

  // The noun for a word: itself, its plural or a short form. Errors: invalid USAGE with a suggestion.
  Result<std::string> noun(std::string_view word) const;
  // Errors: invalid USAGE with a suggestion.
  Result<const Command*> command(std::string_view noun, std::string_view verb) const;
  // Null if there is none.
  const Command* find(std::string_view noun, std::string_view verb) const;
  std::vector<std::string> nouns() const;
  std::vector<const Command*> commands(std::string_view noun) const;
  const call::Contract& contract() const { return contract_; }
  // By full name, "Service/Method" or a method name that only one service has. Errors: invalid USAGE.
  Result<const call::Method*> method(std::string_view name) const;

 private:
  const call::Contract& contract_;
  std::map<std::string, std::vector<Command>, std::less<>> nouns_;
};

// Words that are commands by themselves, with what they do.
struct Verbless {
  std::string_view word;
  std::string_view usage;
  std::string_view what;
  std::string_view help;  // empty: usage and what say it
};
std::span<const Verbless> verbless_commands();
// What `--help` of such a command prints; empty if there is none of the name.
std::string verbless_help(std::string_view word);

// Commands that make files for nodes which do not run yet. The server program, beside this one, does them.
struct FileFlag {
  std::string_view name;
  std::string_view value_name;
  std::string_view what;
  std::string_view word = {};  // the one value that it takes; empty: any
  bool required = false;
};
struct FileCommand {
  std::string_view noun;
  std::string_view verb;
  std::span<const FileFlag> flags;
  std::string_view what;
  std::string_view details;
};
std::span<const FileCommand> file_commands();
// "cluster prepare --node ID [--data-dir DIR]"
std::string usage_of(const FileCommand& command);
// As the flags of other commands are shown and completed; nothing is parsed with them.
std::vector<Flag> flags_of(const FileCommand& command);
// Null if there is none.
const FileCommand* find_file_command(std::string_view noun, std::string_view verb);

}  // namespace uccp::cli
