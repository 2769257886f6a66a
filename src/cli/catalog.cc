#include "cli/catalog.h"

#include <array>

#include "cli/text.h"

namespace uccp::cli {
namespace {

struct VerbAlias {
  std::string_view noun;  // empty: any
  std::string_view word;
  std::string_view verb;  // of the contract
};

constexpr size_t kSuggestionsMax = 4;

constexpr std::array<VerbAlias, 7> kVerbAliases = {{
    {"task", "run", "submit"},
    {"service", "ls", "list"},
    {"service", "rm", "deregister"},
    {"worker", "rm", "deregister"},
    {"", "ls", "list"},
    {"", "rm", "delete"},
    {"", "show", "get"},
}};

constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kNounAliases = {{
    {"subscription", "group"},
    {"svc", "service"},
    {"cert", "certificate"},
    {"cfg", "config"},
}};

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return out;
}

}  // namespace

Catalog::Catalog(const call::Contract& contract) : contract_(contract) {
  for (const call::Method& method : contract.methods()) {
    if (!method.cli) continue;
    nouns_[method.cli->noun].push_back({method.cli->noun, method.cli->verb, &method});
  }
}

Result<std::string> Catalog::noun(std::string_view word) const {
  std::vector<std::string> known;
  for (const auto& [noun, commands] : nouns_) {
    if (word == noun || word == plural(noun)) return noun;
    known.push_back(noun);
  }
  for (const auto& [alias, noun] : kNounAliases) {
    if (word == alias && nouns_.contains(noun)) return std::string(noun);
  }
  for (const Verbless& command : verbless_commands()) known.emplace_back(command.word);
  std::string message = "unknown command \"" + printable(word) + "\"";
  // `login` for `auth login`: a verb without its noun.
  std::vector<std::string> with_noun;
  for (const auto& [noun, commands] : nouns_) {
    if (find(noun, word) != nullptr) with_noun.push_back("\"" + noun + " " + std::string(word) + "\"");
  }
  const std::string near = nearest(word, known);
  if (!with_noun.empty() && with_noun.size() <= kSuggestionsMax) {
    message += "; did you mean " + join(with_noun, " or ") + "?";
  } else {
    message += near.empty() ? "; `uccp-cli help` lists them" : "; did you mean \"" + near + "\"?";
  }
  return std::unexpected(usage_error(std::move(message)));
}

const Command* Catalog::find(std::string_view noun, std::string_view verb) const {
  const auto found = nouns_.find(noun);
  if (found == nouns_.end()) return nullptr;
  const auto by_verb = [&](std::string_view wanted) -> const Command* {
    for (const Command& command : found->second) {
      if (command.verb == wanted) return &command;
    }
    return nullptr;
  };
  if (const Command* command = by_verb(verb)) return command;
  for (const VerbAlias& alias : kVerbAliases) {
    if (alias.word != verb || (!alias.noun.empty() && alias.noun != noun)) continue;
    if (const Command* command = by_verb(alias.verb)) return command;
  }
  return nullptr;
}

Result<const Command*> Catalog::command(std::string_view noun, std::string_view verb) const {
  if (const Command* command = find(noun, verb)) return command;
  std::vector<std::string> known;
  for (const Command* command : commands(noun)) known.push_back(command->verb);
  std::string message = "unknown command \"" + std::string(noun) + " " + printable(verb) + "\"";
  const std::string near = nearest(verb, known);
  message += near.empty() ? "; there is: " + join(known, ", ") : "; did you mean \"" + near + "\"?";
  return std::unexpected(usage_error(std::move(message)));
}

std::vector<std::string> Catalog::nouns() const {
  std::vector<std::string> nouns;
  for (const auto& [noun, commands] : nouns_) nouns.push_back(noun);
  return nouns;
}

std::vector<const Command*> Catalog::commands(std::string_view noun) const {
  std::vector<const Command*> commands;
  const auto found = nouns_.find(noun);
  if (found == nouns_.end()) return commands;
  for (const Command& command : found->second) commands.push_back(&command);
  return commands;
}

Result<const call::Method*> Catalog::method(std::string_view name) const {
  if (const call::Method* method = contract_.find(name)) return method;
  std::vector<const call::Method*> matches;
  std::vector<std::string> known;
  const std::string wanted = lower(name);
  for (const call::Method& method : contract_.methods()) {
    const std::string in_service = method.service.substr(method.service.rfind('.') + 1) + "/" + method.name;
    if (lower(method.name) == wanted || lower(in_service) == wanted) matches.push_back(&method);
    known.push_back(method.name);
  }
  if (matches.size() == 1) return matches.front();
  std::string message;
  if (matches.empty()) {
    const std::string near = nearest(name, known);
    if (!near.empty()) known = {near};
    std::erase_if(known, [&](const std::string& method) { return near.empty() && !lower(method).contains(wanted); });
    const bool helps = !known.empty() && known.size() <= kSuggestionsMax;
    message = "unknown method \"" + printable(name) + "\"" +
              (helps ? "; did you mean " + join(known, " or ") + "?" : "; `uccp-cli api` lists them");
  } else {
    message = "method \"" + printable(name) + "\" is in several services:";
    for (const call::Method* method : matches) message += " " + method->full_name;
  }
  return std::unexpected(usage_error(std::move(message)));
}

}  // namespace uccp::cli
