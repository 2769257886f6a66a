#include "cli/commands.h"

#include <algorithm>
#include <charconv>

#include "cli/follow.h"
#include "cli/help.h"
#include "cli/json_path.h"
#include "cli/output.h"

namespace uccp::cli {
namespace {

Flag limit_flag(uint64_t& limit) {
  return Flag{.names = {"limit"},
              .value_name = "NUMBER",
              .help = "most items in all; default all",
              .set = [&limit](std::string_view text) {
                const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), limit);
                if (error == std::errc() && end == text.data() + text.size() && limit > 0) return Status::ok();
                return usage_error("--limit takes a number from 1, got \"" + std::string(text) + "\"");
              }};
}

Result<int> perform_list(Session& session, const Command& command, const std::string& wire, uint64_t limit) {
  const call::Method& method = *command.method;
  UCCP_TRY(const call::FieldPath path, call::FieldPath::compile(*method.response, method.items->name));
  std::vector<std::string> items;
  Status printed;
  // Lines can be printed page by page; everything else needs the whole.
  const bool by_page = session.settings.format == Format::kJsonl || session.settings.format == Format::kName;
  uint64_t seen = 0;
  const auto on_page = [&](const std::string& response) {
    for (const std::string_view item : call::get_items(path, response)) {
      if (limit == 0 || seen++ < limit) items.emplace_back(item);
    }
    if (by_page && printed.is_ok()) {
      printed = print_rows(session, command, items);
      items.clear();
    }
  };
  const Caller::PageRequest pages{wire, limit, call::has_field(method.paging->page_size, wire)};
  UCCP_TRY(const std::string next, session.caller.pages(method, pages, on_page));
  UCCP_RETURN_IF_ERROR(printed);
  if (!by_page) {
    UCCP_RETURN_IF_ERROR(print_rows(session, command, items));
  }
  if (!next.empty()) session.note("there are more; raise --limit or go on with --page-token " + next);
  return kExitOk;
}

Result<int> perform_stream(Session& session, const Command& command, const std::string& wire) {
  StreamPrinter printer(session, command);
  Status printed;
  const Status ended = session.caller.stream(*command.method, wire, [&](const std::string& item) {
    printed = printer.print(item);
    return printed.is_ok();
  });
  UCCP_RETURN_IF_ERROR(printed);
  UCCP_RETURN_IF_ERROR(ended);
  return kExitOk;
}

}  // namespace

std::vector<Flag> command_flags(const Catalog& catalog, Request& request, CommandOptions& options) {
  std::vector<Flag> flags;
  const call::Method& method = request.method();
  const call::FieldPlan* follow = method.request->by_name("follow");
  if (follow != nullptr && follow->kind == call::Kind::kBool) {
    flags.push_back({.names = {"follow"},
                     .letter = 'f',
                     .is_switch = true,
                     .help = method.request->full_name + ".follow",
                     .set = [&request](std::string_view text) { return request.set("follow", text); }});
  }
  if (method.paging && method.request->by_name("limit") == nullptr) flags.push_back(limit_flag(options.limit));
  if (method.full_name == "uccp.v1.EventBus/CreateTopic") {
    flags.push_back({.names = {"ephemeral"},
                     .is_switch = true,
                     .help = "present subscribers get its events, and nothing is kept",
                     .set = [&request](std::string_view text) {
                       return text == "true" ? request.set("topic.persistence", "EPHEMERAL") : Status::ok();
                     }});
  }
  add_task_flags(request, options, flags);
  const auto& cli = method.cli;
  const bool waits = std::ranges::any_of(flags, [](const Flag& flag) { return flag.names.front() == "wait"; });
  if (!waits && cli && can_be_followed(catalog, {cli->noun, cli->verb, &method})) {
    flags.push_back({.names = {"wait"},
                     .is_switch = true,
                     .help = "go on until it has ended, and say how far it is",
                     .set = [&options](std::string_view text) {
                       options.wait = text == "true";
                       return Status::ok();
                     }});
  }
  return flags;
}

Result<ParsedRequest> parse_request(Session& session, Request& request, Args args, const std::vector<Flag>& extra,
                                    const RequestRules& rules) {
  const std::vector<Flag> fields = request.flags();
  const std::vector<Flag>* const lists[] = {&extra, &fields, &session.globals};
  ParseRule rule;
  const auto& cli = request.method().cli;
  if (rules.takes_arguments && cli && !cli->args.empty() && cli->args.back().leaf().name == "command") {
    rule.verbatim_after = cli->args.size();
  }
  UCCP_TRY(std::vector<std::string> words, parse_flags(args, lists, rule));
  ParsedRequest parsed;
  if (session.settings.help) {
    parsed.wants_help = true;
    return parsed;
  }
  const Settings& settings = session.settings;
  if (!settings.data.empty() && !settings.data_file.empty()) {
    return std::unexpected(usage_error("give the body by --data or by --file, not both"));
  }
  if (!settings.data.empty()) UCCP_RETURN_IF_ERROR(request.set_body(settings.data, "--data", rules.body_form));
  if (!settings.data_file.empty()) {
    UCCP_TRY(const std::string text, session.io.read_file(settings.data_file));
    UCCP_RETURN_IF_ERROR(request.set_body(text, settings.data_file, rules.body_form));
  }
  if (rules.takes_arguments && cli) {
    UCCP_RETURN_IF_ERROR(request.set_arguments(std::move(words)));
  } else if (!words.empty()) {
    return std::unexpected(usage_error("argument \"" + words.front() + "\" is one too many"));
  }
  UCCP_TRY(std::string wire, request.wire());
  parsed.wire = session.caller.prepared(request.method(), std::move(wire));
  return parsed;
}

Result<int> perform(Session& session, const Command& command, const std::string& wire, uint64_t limit) {
  const call::Method& method = *command.method;
  if (method.client_streaming) {
    return fail(Code::kUnimplemented, "CLIENT_STREAM",
                method.name + " takes a stream of messages, which this program does not send; use an SDK");
  }
  if (method.server_streaming) return perform_stream(session, command, wire);
  if (method.paging) return perform_list(session, command, wire, limit);
  UCCP_TRY(const std::string response, session.caller.unary(method, wire));
  UCCP_RETURN_IF_ERROR(print_answer(session, command, wire, response));
  return kExitOk;
}

Result<int> run_command(Session& session, const Command& command, Args args) {
  Request request(*command.method, session.io);
  CommandOptions options;
  const std::vector<Flag> extra = command_flags(session.catalog, request, options);
  UCCP_TRY(const ParsedRequest parsed, parse_request(session, request, args, extra));
  if (parsed.wants_help) {
    session.io.out(command_help(session, command, extra));
    return kExitOk;
  }
  if (!options.wait || session.settings.dry_run) return perform(session, command, parsed.wire, options.limit);
  UCCP_TRY(const std::string begun, session.caller.unary(*command.method, parsed.wire));
  UCCP_TRY(const std::string ended, follow_to_end(session, command, begun));
  UCCP_RETURN_IF_ERROR(print_answer(session, command, parsed.wire, ended));
  const std::string status =
      call::get_text(*call::FieldPath::compile(*command.method->response, "status"), ended).value_or("");
  return status == "FAILED" ? kExitError : kExitOk;
}

}  // namespace uccp::cli
