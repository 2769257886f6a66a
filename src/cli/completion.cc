// `uccp-cli completion SHELL` and what the scripts that it prints ask for: `uccp-cli __complete WORD...`, whose last
// word is the one being written. Candidates come from the contract; names of resources come from the cluster.
#include <algorithm>

#include "call/contract.h"
#include "cli/commands.h"
#include "cli/contexts.h"
#include "cli/render.h"
#include "cli/text.h"

namespace uccp::cli {
namespace {

constexpr uint64_t kLiveNamesMax = 200;
// Somebody waits at the keyboard.
constexpr int64_t kLiveTimeoutMs = 2'000;

constexpr std::string_view kBash = R"(# bash: source <(uccp-cli completion bash)
_uccp_cli() {
  local IFS=$'\n' words=("${COMP_WORDS[@]:1:COMP_CWORD}")
  # Bash takes HOST:PORT and KEY=VALUE apart; what it replaces is the part behind the last of these.
  COMPREPLY=($(uccp-cli __complete "${words[@]}" 2>/dev/null))
  if [ "${#COMPREPLY[@]}" = 1 ] && [[ "${COMPREPLY[0]}" == *= ]]; then compopt -o nospace; fi
}
complete -o default -F _uccp_cli uccp-cli
)";

constexpr std::string_view kZsh = R"(#compdef uccp-cli
# zsh: source <(uccp-cli completion zsh), or put it into a folder of $fpath as _uccp-cli
_uccp_cli() {
  local -a candidates
  candidates=("${(@f)$(uccp-cli __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ -n "${candidates[1]}" ]]; then compadd -a candidates; else _files; fi
}
if [[ "${funcstack[1]}" = _uccp-cli ]]; then _uccp_cli "$@"; else compdef _uccp_cli uccp-cli; fi
)";

constexpr std::string_view kFish = R"(# fish: uccp-cli completion fish | source
complete -c uccp-cli -a '(uccp-cli __complete (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
)";

bool takes_name(std::string_view word) {
  return word == "get" || word == "describe" || word == "delete" || word == "wait" || word == "logs";
}
bool takes_noun(std::string_view word) {
  return takes_name(word) || word == "help" || word == "explain" || word == "man";
}

class Completer {
 public:
  Completer(Session& session, Args words) : session_(session), words_(words) {}

  std::vector<std::string> candidates() {
    const std::string typed = words_.empty() ? "" : words_.back();
    find(typed);
    std::erase_if(found_, [&](const std::string& word) { return !word.starts_with(typed); });
    std::ranges::sort(found_);
    const auto rest = std::ranges::unique(found_);
    found_.erase(rest.begin(), rest.end());
    return std::move(found_);
  }

 private:
  void find(const std::string& typed) {
    // The words in front, without flags and their values; global flags that say where the cluster is are taken.
    std::vector<std::string> before;
    const Flag* open = nullptr;
    for (size_t i = 0; i + 1 < words_.size(); ++i) {
      const std::string& word = words_[i];
      if (word == "--") return;
      if (open != nullptr) {
        const bool is_global =
            open >= session_.globals.data() && open < session_.globals.data() + session_.globals.size();
        if (is_global) (void)open->set(word);
        open = nullptr;
      } else if (word.starts_with('-')) {
        open = word.contains('=') ? nullptr : flag_of(word, before);
        if (open != nullptr && open->is_switch) open = nullptr;
      } else {
        before.push_back(word);
      }
    }
    if (open != nullptr) return values_of(*open);
    if (typed.starts_with('-')) return flags(before);
    if (before.empty()) return first_words();
    const Result<std::string> noun = session_.catalog.noun(before.front());
    if (before.front() == "context") return contexts(before);
    if (before.front() == "completion") found_ = {"bash", "zsh", "fish"};
    if (before.front() == "top") found_ = {"workers", "tasks", "nodes"};
    if (takes_noun(before.front())) {
      if (before.size() == 1) found_ = session_.catalog.nouns();
      if (takes_name(before.front()) && before.size() >= 2) live(before[1]);
      return;
    }
    if (!noun) return;
    if (before.size() == 1) {
      for (const Command* command : session_.catalog.commands(*noun)) found_.push_back(command->verb);
      for (const FileCommand& command : file_commands()) {
        if (command.noun == *noun) found_.emplace_back(command.verb);
      }
      return;
    }
    const Command* command = session_.catalog.find(*noun, before[1]);
    if (command == nullptr || !command->method->cli || command->method->cli->args.empty()) return;
    // A verb that makes a resource has no names to offer.
    const call::Method& method = *command->method;
    const bool names_one =
        before.size() == 2 && method.location.empty() && method.resource.text() == method.cli->args.front().text();
    if (names_one) live(*noun);
  }

  void first_words() {
    found_ = session_.catalog.nouns();
    for (const Verbless& command : verbless_commands()) found_.emplace_back(command.word);
  }

  void contexts(const std::vector<std::string>& before) {
    if (before.size() == 1) {
      found_ = {"list", "set", "use", "show", "delete"};
    } else if (before.size() == 2) {
      found_ = context_names(session_.io);
    }
  }

  const Command* command_of(const std::vector<std::string>& before) {
    if (before.size() < 2) return nullptr;
    const Result<std::string> noun = session_.catalog.noun(before[0]);
    return noun ? session_.catalog.find(*noun, before[1]) : nullptr;
  }

  // Flags of the command before us, built on demand and kept while their pointers are used.
  const std::vector<Flag>& request_flags(const std::vector<std::string>& before) {
    if (const FileCommand* made = before.size() < 2 ? nullptr : find_file_command(before[0], before[1])) {
      if (request_flags_.empty()) request_flags_ = flags_of(*made);
      return request_flags_;
    }
    if (const Command* command = command_of(before); command != nullptr && flags_of_ != command) {
      request_ = std::make_unique<Request>(*command->method, session_.io);
      request_flags_ = request_->flags();
      for (Flag& flag : command_flags(session_.catalog, *request_, options_)) request_flags_.push_back(std::move(flag));
      flags_of_ = command;
    }
    return request_flags_;
  }

  const Flag* flag_of(const std::string& word, const std::vector<std::string>& before) {
    const std::string name = word.substr(word.starts_with("--") ? 2 : 1);
    const bool is_letter = !word.starts_with("--");
    for (const std::vector<Flag>* list :
         {&request_flags(before), static_cast<const std::vector<Flag>*>(&session_.globals)}) {
      for (const Flag& flag : *list) {
        if (is_letter ? name.size() == 1 && flag.letter == name[0]
                      : std::ranges::find(flag.names, name) != flag.names.end())
          return &flag;
      }
    }
    return nullptr;
  }

  void flags(const std::vector<std::string>& before) {
    // What makes files knows nothing of a cluster, and takes no flags about one.
    const bool is_local = before.size() >= 2 && find_file_command(before[0], before[1]) != nullptr;
    if (is_local) found_.push_back("--help");
    for (size_t i = 0; !is_local && i < session_.globals.size(); ++i)
      found_.push_back("--" + session_.globals[i].names.front());
    for (const Flag& flag : request_flags(before)) {
      if (flag.depth <= 1) found_.push_back("--" + flag.names.front());
    }
  }

  void values_of(const Flag& flag) {
    const std::string& name = flag.names.front();
    if (!flag.choices.empty()) {
      found_ = flag.choices;
    } else if (name == "output") {
      found_ = {"table", "wide", "json", "jsonl", "yaml", "csv", "name", "manifest", "jsonpath="};
    } else if (name == "context") {
      found_ = context_names(session_.io);
    } else if (name == "consistency") {
      found_ = {"linearizable", "lease", "bounded:", "session:"};
    }
  }

  // Names of the noun's resources, from the cluster; none if it does not answer soon.
  void live(const std::string& word) {
    const Result<std::string> noun = session_.catalog.noun(word);
    const Command* list = noun ? session_.catalog.find(*noun, "list") : nullptr;
    if (list == nullptr || !list->method->paging || list->method->items == nullptr) return;
    if (session_.settings.timeout_ms < 0) session_.settings.timeout_ms = kLiveTimeoutMs;
    const call::Method& method = *list->method;
    const Result<call::FieldPath> path = call::FieldPath::compile(*method.response, method.items->name);
    if (!path) return;
    const auto on_page = [&](const std::string& response) {
      for (const std::string_view item : call::get_items(*path, response)) {
        found_.push_back(printable(resource_id(*method.items->message, item)));
      }
    };
    (void)session_.caller.pages(method, {session_.caller.prepared(method, ""), kLiveNamesMax, false}, on_page);
  }

  Session& session_;
  Args words_;
  std::vector<std::string> found_;
  std::unique_ptr<Request> request_;
  std::vector<Flag> request_flags_;
  const Command* flags_of_ = nullptr;
  CommandOptions options_;
};

}  // namespace

Result<int> run_completion(Session& session, Args args) {
  const std::vector<Flag>* const lists[] = {&session.globals};
  UCCP_TRY(const std::vector<std::string> words, parse_flags(args, lists));
  const std::string shell = words.empty() ? "" : words.front();
  const std::string_view script = shell == "bash" ? kBash : shell == "zsh" ? kZsh : shell == "fish" ? kFish : "";
  if (script.empty()) return std::unexpected(usage_error("completion takes the name of a shell: bash, zsh or fish"));
  session.io.out(script);
  return kExitOk;
}

Result<int> run_complete(Session& session, Args args) {
  for (const std::string& word : Completer(session, args).candidates()) session.io.out(word + "\n");
  return kExitOk;
}

}  // namespace uccp::cli
