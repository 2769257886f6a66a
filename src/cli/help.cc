#include "cli/help.h"

#include <algorithm>
#include <array>
#include <map>

#include "cli/commands.h"
#include "cli/text.h"

namespace uccp::cli {
namespace {

constexpr size_t kHelpColumn = 34;  // where explanations begin
constexpr size_t kHelpWidth = 110;

struct Example {
  std::string_view noun;
  std::string_view verb;
  std::string_view line;
};

constexpr std::array<Example, 26> kExamples = {{
    {"task", "submit", "uccp-cli task submit --cpu 2 --memory 512Mi --follow -- python3 train.py --epochs 5"},
    {"task", "submit", "uccp-cli task submit --name nightly --env MODE=full --retries 3 --wait -- ./run.sh"},
    {"task", "submit", "uccp-cli task submit -f task.yaml"},
    {"task", "list", "uccp-cli task list --status running --order-by 'createTime desc' --limit 20"},
    {"task", "list", "uccp-cli task list --filter 'labels.team = \"ml\"' -o json"},
    {"task", "get", "uccp-cli task get task_01J8ZQ4V5K -o json"},
    {"task", "logs", "uccp-cli task logs task_01J8ZQ4V5K -f"},
    {"task", "logs", "uccp-cli task logs task_01J8ZQ4V5K --tail 100 --stream stderr"},
    {"task", "cancel", "uccp-cli task cancel task_01J8ZQ4V5K --reason 'wrong input'"},
    {"task", "watch", "uccp-cli task watch -o jsonl"},
    {"service", "register", "uccp-cli service register checkout 10.0.0.7:8080 --ttl 30s --label tier=web"},
    {"service", "register", "uccp-cli service register checkout 10.0.0.7 8080 --health-check.interval 5s"},
    {"service", "list", "uccp-cli service list -o wide"},
    {"service", "discover", "uccp-cli service discover checkout --version '^1.2' -o json"},
    {"service", "heartbeat", "uccp-cli service heartbeat svc_01J8ZQ4V5K"},
    {"service", "deregister", "uccp-cli service deregister svc_01J8ZQ4V5K"},
    {"worker", "list", "uccp-cli worker list -o wide"},
    {"worker", "drain", "uccp-cli worker drain worker_01J8ZQ4V5K --deadline 10m"},
    {"lock", "acquire", "uccp-cli lock acquire orders/42 --ttl 30s"},
    {"lock", "release", "uccp-cli lock release orders/42 LEASE"},
    {"config", "get", "uccp-cli config get tasks."},
    {"config", "set", "uccp-cli config set tasks.retention=14d"},
    {"quota", "set", "uccp-cli quota set team-a -f quota.yaml"},
    {"event", "publish", "uccp-cli event publish orders.eu.created 'order 42'"},
    {"event", "publish",
     "uccp-cli event publish orders.eu.created --event '{\"key\":\"42\",\"json\":{\"total\":9.5}}'"},
    {"event", "subscribe", "uccp-cli event subscribe orders.eu.created -o jsonl"},
}};

std::string argument_words(const call::Method& method) {
  std::string out;
  if (!method.cli) return out;
  for (const call::FieldPath& arg : method.cli->args) {
    std::string word = to_heading(arg.leaf().name);
    if (arg.leaf().is_repeated()) {
      const std::string one = singular(arg.leaf().name);
      word = (one.empty() ? word : to_heading(one)) + "...";
    }
    out += arg.leaf().required ? " " + word : " [" + word + "]";
  }
  return out;
}

std::string explained(const std::string& left, std::string_view what) {
  if (what.empty()) return left + "\n";
  const bool fits = display_width(left) + 2 <= kHelpColumn;
  return (fits ? padded(left, kHelpColumn) : left + "\n" + std::string(kHelpColumn, ' ')) +
         wrapped(what, kHelpColumn, kHelpWidth) + "\n";
}

std::string flag_line(const Session& session, const Flag& flag) {
  std::string left = flag.letter != 0 ? std::string("  -") + flag.letter + ", --" : "      --";
  left += flag.names.front();
  if (!flag.is_switch) left += " " + flag.value_name;
  return explained(left, flag_help(session, flag));
}

std::string global_lines(const Session& session) {
  std::string out;
  for (const Flag& flag : session.globals) out += flag_line(session, flag);
  return out;
}

}  // namespace

std::string flag_help(const Session& session, const Flag& flag) {
  // Global flags and extras carry their text, fields of the contract the name that its comment is filed under.
  std::string what = flag.help.starts_with("uccp.v1.") ? session.docs.sentence(flag.help) : flag.help;
  if (!flag.choices.empty()) what += (what.empty() ? "one of " : "; one of ") + join(flag.choices, ", ");
  return what;
}

std::string comment_name(const call::Method& method) { return method.service + "." + method.name; }

std::string examples_for(const Command& command) {
  std::string out;
  for (const Example& example : kExamples) {
    if (example.noun == command.noun && example.verb == command.verb) out += "  " + std::string(example.line) + "\n";
  }
  if (!out.empty() || !command.method->cli) return out;
  std::string line = "  uccp-cli " + command.noun + " " + command.verb;
  for (const call::FieldPath& arg : command.method->cli->args) {
    if (arg.leaf().example.empty()) return {};
    line += " " + arg.leaf().example;
  }
  return line + "\n";
}

std::string usage_line(const Command& command) {
  return "usage: uccp-cli " + command.noun + " " + command.verb + argument_words(*command.method) + " [FLAGS]";
}

std::string top_help(const Session& session) {
  std::string out =
      "uccp-cli operates a UCCP cluster.\n\n"
      "usage: uccp-cli NOUN VERB [ARGUMENTS] [FLAGS]\n\n"
      "Commands\n";
  for (const std::string& noun : session.catalog.nouns()) {
    std::vector<std::string> verbs;
    for (const Command* command : session.catalog.commands(noun)) verbs.push_back(command->verb);
    for (const FileCommand& command : file_commands()) {
      if (command.noun == noun) verbs.emplace_back(command.verb);
    }
    out += padded("  " + noun, 16) + wrapped(join(verbs, ", "), 16, kHelpWidth) + "\n";
  }
  for (const Verbless& command : verbless_commands()) {
    out += padded("  " + std::string(command.word), 16) + std::string(command.what) + "\n";
  }
  out +=
      "\nExamples\n"
      "  uccp-cli task submit --cpu 1 --memory 64Mi --follow -- echo hello\n"
      "  uccp-cli service register checkout 10.0.0.7:8080 --ttl 30s\n"
      "  uccp-cli service discover checkout -o json\n"
      "  uccp-cli worker list\n"
      "  uccp-cli user create ana\n"
      "  uccp-cli binding create developer ana\n"
      "  uccp-cli auth explain ScheduleTask --principal ana\n"
      "\nFlags of every command\n" +
      global_lines(session) +
      "\n`uccp-cli NOUN VERB --help` explains a command, `uccp-cli help exit-codes` the exit codes,\n"
      "`uccp-cli help permissions` what roles can grant.\n";
  return out;
}

std::string noun_help(const Session& session, const std::string& noun) {
  std::vector<std::pair<std::string, std::string>> lines;
  for (const Command* command : session.catalog.commands(noun)) {
    lines.emplace_back(command->verb + argument_words(*command->method),
                       session.docs.sentence(comment_name(*command->method)));
  }
  for (const FileCommand& command : file_commands()) {
    if (command.noun == noun) lines.emplace_back(command.verb, command.what);
  }
  size_t width = 0;
  for (const auto& [words, what] : lines) width = std::max(width, display_width(words));
  std::string out = "usage: uccp-cli " + noun + " VERB [ARGUMENTS] [FLAGS]\n\nCommands\n";
  for (const auto& [words, what] : lines) {
    out += "  " + padded(words, width + 2) + wrapped(what, width + 4, kHelpWidth) + "\n";
  }
  out += "\n`uccp-cli " + noun + " VERB --help` explains one of them.\n";
  return out;
}

std::string file_command_help(const Session& session, const FileCommand& command) {
  std::string out = std::string(command.what) + ".\n\n" + std::string(command.details) + "\n\nusage: uccp-cli " +
                    usage_of(command) + "\n\nFlags\n";
  for (const Flag& flag : flags_of(command)) out += flag_line(session, flag);
  return out;
}

std::string command_help(Session& session, const Command& command, const std::vector<Flag>& extra) {
  const std::string_view comment = session.docs.comment(comment_name(*command.method));
  std::string out;
  if (!comment.empty()) out += std::string(comment) + (comment.ends_with('\n') ? "\n" : "\n\n");
  out += usage_line(command) + "\n";
  const std::string examples = examples_for(command);
  if (!examples.empty()) out += "\nExamples\n" + examples;
  if (command.method->cli && !command.method->cli->args.empty()) {
    out += "\nArguments\n";
    for (const call::FieldPath& arg : command.method->cli->args) {
      const std::string name = arg.owner(arg.steps().size() - 1).full_name + "." + arg.leaf().name;
      out += explained("  " + to_heading(arg.leaf().name), session.docs.sentence(name));
    }
  }
  Request request(*command.method, session.io);
  const std::vector<Flag> fields = request.flags();
  bool deeper = false;
  out += "\nFlags\n";
  for (const Flag& flag : extra) out += flag_line(session, flag);
  for (const Flag& flag : fields) {
    const auto in_extra = [&](const Flag& other) { return other.names.front() == flag.names.front(); };
    if (std::ranges::any_of(extra, in_extra)) continue;
    if (flag.depth > kHelpDepthMax) {
      deeper = true;
    } else {
      out += flag_line(session, flag);
    }
  }
  if (deeper) out += "  Fields further down are reached by their path: --outer.inner.field VALUE.\n";
  out += "\nGlobal flags: see `uccp-cli help`.\n";
  return out;
}

std::string api_help() {
  return "Calls any method of the contract.\n\n"
         "usage: uccp-cli api METHOD [--data JSON | -f FILE] [--field VALUE]...\n\n"
         "METHOD is a full name, Service/Method, or a name that only one service has. The request is the whole "
         "request\n"
         "message in JSON; the answer is JSON, of streams one line an item. Without METHOD all methods are listed.\n\n"
         "Examples\n"
         "  uccp-cli api ScheduleTask --data '{\"task\":{\"command\":[\"echo\",\"hello\"]}}'\n"
         "  uccp-cli api TaskScheduling/GetTaskStatus --id task_01J8ZQ4V5K\n";
}

// What roles can grant, each with the commands that ask for it.
std::string permission_help(const Session& session) {
  std::map<std::string, std::vector<std::string>> commands;
  for (const std::string& noun : session.catalog.nouns()) {
    for (const Command* command : session.catalog.commands(noun)) {
      const std::string& permission = command->method->permission;
      if (!permission.empty() && permission != "public")
        commands[permission].push_back(command->noun + " " + command->verb);
    }
  }
  std::string out =
      "Permissions, and the commands that need them. A role grants them by name, or as noun.*, *.verb or *.\n";
  for (const auto& [permission, needed_by] : commands) out += explained("  " + permission, join(needed_by, ", "));
  return out + "\nWhat you may: uccp-cli auth whoami. Why a call is allowed or not: uccp-cli auth explain METHOD.\n";
}

Result<int> run_help(Session& session, Args args) {
  const std::vector<Flag>* const lists[] = {&session.globals};
  UCCP_TRY(const std::vector<std::string> words, parse_flags(args, lists));
  if (words.empty()) {
    session.io.out(top_help(session));
    return kExitOk;
  }
  if (words.front() == "exit-codes") {
    session.io.out(exit_code_help());
    return kExitOk;
  }
  if (words.front() == "permissions") {
    session.io.out(permission_help(session));
    return kExitOk;
  }
  if (words.front() == "api") {
    session.io.out(api_help());
    return kExitOk;
  }
  for (const Verbless& command : verbless_commands()) {
    if (words.front() != command.word) continue;
    session.io.out(verbless_help(command.word));
    return kExitOk;
  }
  UCCP_TRY(const std::string noun, session.catalog.noun(words.front()));
  if (words.size() == 1) {
    session.io.out(noun_help(session, noun));
    return kExitOk;
  }
  if (const FileCommand* command = find_file_command(noun, words[1])) {
    session.io.out(file_command_help(session, *command));
    return kExitOk;
  }
  UCCP_TRY(const Command* command, session.catalog.command(noun, words[1]));
  Request request(*command->method, session.io);
  CommandOptions options;
  session.io.out(command_help(session, *command, command_flags(session.catalog, request, options)));
  return kExitOk;
}

}  // namespace uccp::cli
