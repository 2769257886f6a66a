#include "cli/app.h"

#include <algorithm>
#include <array>

#include "cli/commands.h"
#include "cli/help.h"
#include "cli/login.h"
#include "cli/paint.h"

namespace uccp::cli {
namespace {

call::ContractDocs load_docs(std::string_view image) {
  Result<call::ContractDocs> docs = call::ContractDocs::parse(image);
  return docs ? std::move(*docs) : call::ContractDocs();
}

// What was found so far, for the error message.
struct Progress {
  ErrorContext error;
  std::string usage;
};

Result<int> run_verb(Session& session, const std::string& noun, Args args, Progress& progress) {
  const std::vector<Flag>* const lists[] = {&session.globals};
  UCCP_TRY(const std::vector<std::string> rest, parse_flags(args, lists, {.stop_at_positional = true}));
  if (rest.empty()) {
    const std::string help = noun_help(session, noun);
    (session.settings.help ? session.io.out : session.io.err)(help);
    return session.settings.help ? kExitOk : kExitUsage;
  }
  if (const FileCommand* command = find_file_command(noun, rest.front())) {
    // The program runs it itself before it comes here, unless help is wanted or flags stand before its name.
    const bool asked = session.settings.help || rest.back() == "--help" || rest.back() == "-h";
    (asked ? session.io.out : session.io.err)(file_command_help(session, *command));
    return asked ? kExitOk : kExitUsage;
  }
  if (rest.front() == "describe" && session.catalog.find(noun, "get") != nullptr) {
    std::vector<std::string> described(rest.begin(), rest.end());
    described.front() = noun;
    return run_describe(session, described);
  }
  UCCP_TRY(const Command* command, session.catalog.command(noun, rest.front()));
  progress.usage = usage_line(*command);
  const Args words = Args(rest).subspan(1);
  if (noun == "task" && command->method->name == "ScheduleTask") return run_task_submit(session, *command, words);
  if (noun == "task" && command->method->name == "GetTaskLogs") return run_task_logs(session, *command, words);
  if (noun == "cluster" && command->verb == "health") return run_health(session, words);
  if (command->method->name == "SignIn") return run_auth_login(session, *command, words);
  if (command->method->name == "SignOut") return run_auth_logout(session, *command, words);
  if (command->method->name == "SetPassword") return run_set_password(session, *command, words);
  if (command->method->name == "PutSecret") return run_secret_put(session, *command, words);
  if (command->method->name == "AccessSecret") return run_secret_access(session, *command, words);
  return run_command(session, *command, words);
}

constexpr auto kRunners = std::to_array<std::pair<std::string_view, Result<int> (*)(Session&, Args)>>({
    {"api", run_api},
    {"context", run_context},
    {"completion", run_completion},
    {"__complete", run_complete},
    {"etcd", run_etcd},
    {"explain", run_explain},
    {"apply", run_apply},
    {"delete", run_delete},
    {"describe", run_describe},
    {"diff", run_diff},
    {"get", run_get},
    {"man", run_man},
    {"shell", run_shell},
    {"top", run_top},
    {"logs", run_logs},
    {"health", run_health},
    {"version", run_version},
    {"wait", run_wait},
    {"publish", run_publish},
    {"subscribe", run_subscribe},
    {"workflow", run_workflow},
    {"help", run_help},
});

Result<int> dispatch(Session& session, Args args, Progress& progress) {
  bool version = false;
  const std::vector<Flag> extra = {{.names = {"version"},
                                    .is_switch = true,
                                    .help = "the version of this program",
                                    .set = [&version](std::string_view text) {
                                      version = text == "true";
                                      return Status::ok();
                                    }}};
  const std::vector<Flag>* const lists[] = {&session.globals, &extra};
  progress.usage = "usage: uccp-cli NOUN VERB [ARGUMENTS] [FLAGS]";
  UCCP_TRY(const std::vector<std::string> rest, parse_flags(args, lists, {.stop_at_positional = true}));
  if (version) return run_version(session, std::vector<std::string>{"--client"});
  if (rest.empty()) {
    const std::string help = top_help(session);
    (session.settings.help ? session.io.out : session.io.err)(help);
    return session.settings.help ? kExitOk : kExitUsage;
  }
  session.prefix.assign(args.begin(), args.end() - static_cast<ptrdiff_t>(rest.size()));
  const std::string& word = rest.front();
  const Args words = Args(rest).subspan(1);
  for (const Verbless& command : verbless_commands()) {
    if (command.word != word) continue;
    progress.usage = "usage: uccp-cli " + std::string(command.usage);
    // `get role dev`, `get role/dev`: hints are about roles.
    const std::string first = words.empty() ? "" : words.front();
    const Result<std::string> noun = session.catalog.noun(first.substr(0, first.find('/')));
    if (!noun) continue;
    progress.error.noun = *noun;
    progress.error.can_list = session.catalog.find(*noun, "list") != nullptr;
  }
  for (const auto& [name, run] : kRunners) {
    if (name == word) return run(session, words);
  }
  UCCP_TRY(const std::string noun, session.catalog.noun(word));
  progress.error.noun = noun;
  progress.error.can_list = session.catalog.find(noun, "list") != nullptr;
  return run_verb(session, noun, words, progress);
}

}  // namespace

int run(std::span<const std::string> args, const Io& io, const AppOptions& options) {
  const Catalog catalog(call::Contract::get());
  // The comments are megabytes to parse, and only help shows them.
  const bool needs_docs = std::ranges::any_of(args, [](const std::string& arg) {
    return arg == "--help" || arg == "-h" || arg == "help" || arg == "explain" || arg == "man";
  });
  const bool is_short = args.size() <= 1;
  const call::ContractDocs docs = needs_docs || is_short ? load_docs(options.contract_image) : call::ContractDocs();
  Session session(io, options.connect, catalog, docs);
  Progress progress;
  const Result<int> code = dispatch(session, args, progress);
  if (code) return *code;
  const Status& status = code.error();
  progress.error.request_id = session.caller.request_id();
  std::string text = render_error(status, session.settings, progress.error);
  const bool color = io.err_is_terminal && colors_allowed(session.settings, io);
  if (color && text.starts_with("error:")) text = "\x1b[31merror:\x1b[0m" + text.substr(6);
  if (status.reason() == "USAGE" && !session.settings.machine_errors()) text += progress.usage + "\n";
  io.err(text);
  return exit_code(status);
}

}  // namespace uccp::cli
