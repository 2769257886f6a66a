// `task submit` and `task logs`: the commands that run something and show what it writes.
#include <algorithm>
#include <charconv>

#include "base/json.h"
#include "cli/commands.h"
#include "cli/help.h"
#include "cli/output.h"
#include "cli/render.h"
#include "cli/text.h"

namespace uccp::cli {
namespace {

constexpr int64_t kPollMsMin = 100;
constexpr int64_t kPollMsMax = 2000;

const call::Method& method_named(const Session& session, std::string_view name) {
  return *session.catalog.contract().find(name);
}

const call::Method& get_status_method(const Session& session) {
  return method_named(session, "uccp.v1.TaskScheduling/GetTaskStatus");
}
const call::Method& logs_method(const Session& session) {
  return method_named(session, "uccp.v1.TaskScheduling/GetTaskLogs");
}
const call::Method& watch_method(const Session& session) {
  return method_named(session, "uccp.v1.TaskScheduling/WatchTasks");
}

std::string text_at(const call::MessagePlan& plan, std::string_view path, std::string_view wire) {
  const Result<call::FieldPath> compiled = call::FieldPath::compile(plan, path);
  return compiled ? call::get_text(*compiled, wire).value_or("") : "";
}

bool is_terminal(std::string_view status) {
  return status == "SUCCEEDED" || status == "FAILED" || status == "CANCELLED" || status == "TIMED_OUT";
}

// A request with these fields set, in the session's namespace.
using Fields = std::vector<std::pair<std::string_view, std::string>>;
Result<std::string> request_of(Session& session, const call::Method& method, const Fields& fields) {
  Request request(method, session.io);
  for (const auto& [path, text] : fields) UCCP_RETURN_IF_ERROR(request.set(path, text));
  UCCP_TRY(std::string wire, request.wire());
  return session.caller.prepared(method, std::move(wire));
}

// Which of our streams a line of a task goes to.
enum class Split : uint8_t { kAllToOut, kByStream };

Status print_log_item(Session& session, const call::Method& method, const std::string& item, Split split) {
  const call::MessagePlan& plan = *method.response;
  if (session.settings.machine_errors()) {
    UCCP_TRY(const std::string json, message_json(plan, item, Layout::kCompact));
    session.io.out(json + "\n");
    return Status::ok();
  }
  const std::string reason = end_reason(method, item);
  if (!reason.empty()) {
    if (reason != "COMPLETED" && reason != "CAUGHT_UP" && reason != "LIMIT") session.note("log ended: " + reason);
    return Status::ok();
  }
  UCCP_TRY(const call::FieldPath raw, call::FieldPath::compile(plan, "base64"));
  std::string line = text_at(plan, "text", item);
  if (line.empty()) line = std::string(call::get_string(raw, item).value_or(""));
  if (text_at(plan, "partial", item) != "true") line.push_back('\n');
  const bool to_err = split == Split::kByStream && text_at(plan, "stream", item) == "stderr";
  (to_err ? session.io.err : session.io.out)(line);
  return Status::ok();
}

Status follow_logs(Session& session, const std::string& request, Split split) {
  const call::Method& method = logs_method(session);
  Status printed;
  const Status ended = session.caller.stream(method, request, [&](const std::string& item) {
    printed = print_log_item(session, method, item, split);
    return printed.is_ok();
  });
  UCCP_RETURN_IF_ERROR(printed);
  return ended;
}

// The task once it has ended. The watch only shortens the wait: without it the status is asked for again and again.
Result<std::string> wait_for_end(Session& session, const std::string& id, const std::string& name_space) {
  const call::Method& get = get_status_method(session);
  const call::Method& watch = watch_method(session);
  UCCP_TRY(const std::string get_request, request_of(session, get, {{"id", id}, {"namespace", name_space}}));
  UCCP_TRY(const std::string watch_request, request_of(session, watch, {{"ids", id}, {"namespace", name_space}}));
  bool can_watch = true;
  for (int64_t pause_ms = kPollMsMin;; pause_ms = std::min(pause_ms * 2, kPollMsMax)) {
    UCCP_TRY(std::string task, session.caller.unary(get, get_request));
    if (is_terminal(text_at(*get.response, "status", task))) return task;
    if (!can_watch) {
      session.io.sleep_ms(pause_ms);
      continue;
    }
    bool ended = false;
    const Status watched = session.caller.stream(watch, watch_request, [&](const std::string& item) {
      ended = is_terminal(text_at(*watch.response, "task.status", item));
      return !ended;
    });
    if (watched.code() == Code::kPermission || watched.code() == Code::kUnauthenticated)
      return std::unexpected(watched);
    can_watch = watched.code() != Code::kUnimplemented;
    if (!ended) session.io.sleep_ms(pause_ms);
  }
}

std::string failure_text(const call::MessagePlan& plan, const std::string& task) {
  std::string message = "task/" + text_at(plan, "id", task) + " " + text_at(plan, "status", task);
  const std::string reason = text_at(plan, "status_reason", task);
  if (!reason.empty()) message += ": " + reason;
  const std::string exit = text_at(plan, "exit_code", task);
  if (!exit.empty() && message.find("exit code " + exit) == std::string::npos) message += " (exit code " + exit + ")";
  return message;
}

// A line about the task for people: on standard output, unless that belongs to the task's own output.
void say(const Session& session, const CommandOptions& options, const std::string& line) {
  if (options.follow || session.settings.quiet) return session.note(line);
  if (session.settings.format == Format::kTable || session.settings.format == Format::kWide)
    session.io.out(line + "\n");
}

// Prints the task that has ended and answers the exit code of the program.
Result<int> finish_wait(Session& session, const CommandOptions& options, const std::string& task) {
  const call::MessagePlan& plan = *get_status_method(session).response;
  const std::string id = text_at(plan, "id", task);
  const bool succeeded = text_at(plan, "status", task) == "SUCCEEDED";
  // Behind lines of a log the task is one more line.
  if (options.follow && session.settings.format == Format::kJson) session.settings.format = Format::kJsonl;
  const Format format = session.settings.format;
  if (format == Format::kTable || format == Format::kWide) {
    if (session.settings.quiet && !options.follow) session.io.out(printable(id) + "\n");
    if (succeeded) say(session, options, "task/" + printable(id) + " succeeded");
  } else if (format != Format::kName || !options.follow) {
    const Command shown{"task", "get", &get_status_method(session)};
    UCCP_RETURN_IF_ERROR(print_answer(session, shown, "", task));
  }
  if (succeeded) return kExitOk;
  if (!session.settings.machine_errors()) {
    session.io.err("error: " + printable(failure_text(plan, task)) + "\nhint: `uccp-cli task logs " + printable(id) +
                   "` shows what it wrote\n");
  }
  return kExitError;
}

Result<int> follow_up(Session& session, const Command& command, const std::string& request, const std::string& task,
                      const CommandOptions& options) {
  const call::MessagePlan& plan = *command.method->response;
  const std::string id = text_at(plan, "id", task);
  const std::string name_space = text_at(plan, "namespace", task);
  say(session, options, confirmation(session, command, request, task));
  session.io.set_interrupt_note("interrupted; task/" + id + " goes on. `uccp-cli task logs " + id +
                                " -f` follows it, `uccp-cli task cancel " + id + "` stops it");
  if (options.follow) {
    UCCP_TRY(const std::string logs,
             request_of(session, logs_method(session), {{"id", id}, {"namespace", name_space}, {"follow", "true"}}));
    UCCP_RETURN_IF_ERROR(follow_logs(session, logs, Split::kByStream));
  }
  UCCP_TRY(const std::string ended, wait_for_end(session, id, name_space));
  session.io.set_interrupt_note("");
  return finish_wait(session, options, ended);
}

Flag alias_flag(Request& request, std::string name, std::string value_name, std::string path) {
  return Flag{.names = {std::move(name)},
              .value_name = std::move(value_name),
              .help = "short for --" + path,
              .set = [&request, path](std::string_view text) { return request.set(path, text); }};
}

Flag switch_flag(std::string name, std::string help, bool& target) {
  return Flag{
      .names = {std::move(name)}, .is_switch = true, .help = std::move(help), .set = [&target](std::string_view text) {
        target = text == "true";
        return Status::ok();
      }};
}

void add_submit_flags(Request& request, CommandOptions& options, std::vector<Flag>& flags) {
  flags.push_back(switch_flag("wait", "wait for the end; exit code 0 only if it SUCCEEDED", options.wait));
  flags.push_back(switch_flag("follow", "show what it writes, then as --wait", options.follow));
  flags.push_back(alias_flag(request, "gpus", "NUMBER", "task.resources.gpu.count"));
  flags.push_back(alias_flag(request, "image", "IMAGE", "task.container.image"));
  flags.push_back(alias_flag(request, "array-size", "NUMBER", "task.array.size"));
  flags.push_back(alias_flag(request, "parallelism", "NUMBER", "task.array.parallelism"));
  flags.push_back({.names = {"retries"},
                   .value_name = "NUMBER",
                   .help = "tries after the first one; default 0",
                   .set = [&request](std::string_view text) {
                     int retries = 0;
                     const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), retries);
                     if (error != std::errc() || end != text.data() + text.size() || retries < 0 || retries > 999) {
                       return usage_error("--retries takes a number from 0 to 999, got \"" + std::string(text) + "\"");
                     }
                     return request.set("task.retry.max_attempts", std::to_string(retries + 1));
                   }});
  flags.push_back({.names = {"depends-on"},
                   .value_name = "TASK",
                   .help = "task that must succeed first; may be repeated",
                   .set = [&request](std::string_view text) {
                     if (text.starts_with("task/")) text.remove_prefix(5);
                     JsonWriter json;
                     json.begin_object().key("taskId").value(text).end_object();
                     return request.set("task.dependencies", json.take());
                   }});
}

}  // namespace

void add_task_flags(Request& request, CommandOptions& options, std::vector<Flag>& flags) {
  const std::string& method = request.method().full_name;
  if (method == "uccp.v1.TaskScheduling/ScheduleTask") add_submit_flags(request, options, flags);
  if (method == "uccp.v1.TaskScheduling/GetTaskLogs")
    flags.push_back(alias_flag(request, "tail", "NUMBER", "tail_lines"));
}

Result<int> run_task_submit(Session& session, const Command& command, Args args) {
  Request request(*command.method, session.io);
  CommandOptions options;
  const std::vector<Flag> extra = command_flags(session.catalog, request, options);
  UCCP_TRY(const ParsedRequest parsed, parse_request(session, request, args, extra));
  if (parsed.wants_help) {
    session.io.out(command_help(session, command, extra));
    return kExitOk;
  }
  UCCP_TRY(const std::string task, session.caller.unary(*command.method, parsed.wire));
  if (options.wait || options.follow) return follow_up(session, command, parsed.wire, task, options);
  UCCP_RETURN_IF_ERROR(print_answer(session, command, parsed.wire, task));
  return kExitOk;
}

Result<int> run_task_logs(Session& session, const Command& command, Args args) {
  Request request(*command.method, session.io);
  CommandOptions options;
  const std::vector<Flag> extra = command_flags(session.catalog, request, options);
  UCCP_TRY(const ParsedRequest parsed, parse_request(session, request, args, extra));
  if (parsed.wants_help) {
    session.io.out(command_help(session, command, extra));
    return kExitOk;
  }
  UCCP_RETURN_IF_ERROR(follow_logs(session, parsed.wire, Split::kAllToOut));
  return kExitOk;
}

}  // namespace uccp::cli
