// The commands: the general one, which any method of the contract becomes, and the few that do more.
#pragma once

#include <span>
#include <string>

#include "cli/session.h"

namespace uccp::cli {

using Args = std::span<const std::string>;

// Each answers the exit code of the program, or the error to print. `args` is what follows the command's words.
Result<int> run_command(Session& session, const Command& command, Args args);
Result<int> run_task_submit(Session& session, const Command& command, Args args);
Result<int> run_task_logs(Session& session, const Command& command, Args args);
Result<int> run_secret_put(Session& session, const Command& command, Args args);
Result<int> run_secret_access(Session& session, const Command& command, Args args);
Result<int> run_api(Session& session, Args args);
Result<int> run_version(Session& session, Args args);
Result<int> run_health(Session& session, Args args);
Result<int> run_help(Session& session, Args args);
Result<int> run_context(Session& session, Args args);
Result<int> run_completion(Session& session, Args args);
// Candidates for the last word, a line each, for the scripts of run_completion().
Result<int> run_complete(Session& session, Args args);
Result<int> run_explain(Session& session, Args args);
Result<int> run_wait(Session& session, Args args);
Result<int> run_publish(Session& session, Args args);
Result<int> run_subscribe(Session& session, Args args);
Result<int> run_etcd(Session& session, Args args);
Result<int> run_get(Session& session, Args args);
Result<int> run_describe(Session& session, Args args);
Result<int> run_logs(Session& session, Args args);
Result<int> run_apply(Session& session, Args args);
Result<int> run_diff(Session& session, Args args);
Result<int> run_delete(Session& session, Args args);
Result<int> run_top(Session& session, Args args);
Result<int> run_shell(Session& session, Args args);
Result<int> run_man(Session& session, Args args);
// Workflows are read, run and drawn by the Python package.
Result<int> run_workflow(Session& session, Args args);
// The command once for each name, if it takes one.
Result<int> run_each(Session& session, const Command& command, Args args);

// Parsing that commands of one method share: flags of the request on top of a body, `extra` before everything.
struct ParsedRequest {
  std::string wire;  // prepared, ready to send
  bool wants_help = false;
};
struct RequestRules {
  BodyForm body_form = BodyForm::kRest;
  bool takes_arguments = true;
};
Result<ParsedRequest> parse_request(Session& session, Request& request, Args args, const std::vector<Flag>& extra,
                                    const RequestRules& rules = {});
// Sends a prepared request and prints what comes back.
Result<int> perform(Session& session, const Command& command, const std::string& wire, uint64_t limit);
// Flags of a command beside those of its request and the global ones.
struct CommandOptions {
  uint64_t limit = 0;
  bool wait = false;    // until what was begun has ended
  bool follow = false;  // and show what it writes
};
// The one list of them: for parsing, help, manual pages and completion.
std::vector<Flag> command_flags(const Catalog& catalog, Request& request, CommandOptions& options);
// Of the commands that task_commands.cc has, by the name of their method.
void add_task_flags(Request& request, CommandOptions& options, std::vector<Flag>& flags);

}  // namespace uccp::cli
