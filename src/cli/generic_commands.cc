// `get`, `describe` and `logs` of any kind. What there is to a kind is in its Kind; nothing here knows one by name.
#include <algorithm>
#include <map>

#include "base/json.h"
#include "call/json_codec.h"
#include "cli/commands.h"
#include "cli/kinds.h"
#include "cli/output.h"
#include "cli/render.h"
#include "cli/text.h"
#include "cli/yaml.h"

namespace uccp::cli {
namespace {

constexpr int64_t kPollMs = 1'000;
constexpr std::string_view kRecentChanges = "5";

// "role/dev" is "role dev".
std::vector<std::string> split_first(Args args) {
  std::vector<std::string> words(args.begin(), args.end());
  const size_t slash = words.empty() ? std::string::npos : words.front().find('/');
  if (slash == std::string::npos || words.front().starts_with('-')) return words;
  words.insert(words.begin() + 1, words.front().substr(slash + 1));
  words.front().resize(slash);
  return words;
}

Flag switch_of(std::string name, char letter, std::string help, bool& target) {
  return {.names = {std::move(name)},
          .letter = letter,
          .is_switch = true,
          .help = std::move(help),
          .set = [&target](std::string_view text) {
            target = text == "true";
            return Status::ok();
          }};
}

// The words among `args` that are no flags of the command and no values of them.
Result<std::vector<std::string>> words_of(Session& session, const std::vector<const Command*>& commands, Args args,
                                          const std::vector<Flag>& extra) {
  std::vector<std::unique_ptr<Request>> requests;
  std::vector<std::vector<Flag>> flags;
  CommandOptions options;
  for (const Command* command : commands) {
    if (command == nullptr) continue;
    requests.push_back(std::make_unique<Request>(*command->method, session.io));
    flags.push_back(command_flags(session.catalog, *requests.back(), options));
    flags.push_back(requests.back()->flags());
  }
  std::vector<const std::vector<Flag>*> lists = {&extra};
  for (const std::vector<Flag>& list : flags) lists.push_back(&list);
  lists.push_back(&session.globals);
  return parse_flags(args, lists);
}

std::vector<std::string> without(Args args, std::initializer_list<std::string_view> dropped) {
  std::vector<std::string> kept;
  for (const std::string& arg : args) {
    if (std::ranges::find(dropped, std::string_view(arg)) == dropped.end()) kept.push_back(arg);
  }
  return kept;
}

// Lists again and again and prints what is new or differs.
Result<int> poll(Session& session, const Kind& kind, Args args) {
  Request request(*kind.list->method, session.io);
  CommandOptions options;
  const std::vector<Flag> extra = command_flags(session.catalog, request, options);
  UCCP_TRY(const ParsedRequest parsed, parse_request(session, request, args, extra));
  const call::Method& method = *kind.list->method;
  UCCP_TRY(const call::FieldPath path, call::FieldPath::compile(*method.response, method.items->name));
  std::map<std::string, std::string> known;
  for (bool first = true;; first = false) {
    std::map<std::string, std::string> now;
    std::vector<std::string> changed;
    const auto on_page = [&](const std::string& response) {
      for (const std::string_view item : call::get_items(path, response)) {
        const std::string id = resource_id(*method.items->message, item);
        const auto seen = known.find(id);
        if (seen == known.end() || seen->second != item) changed.emplace_back(item);
        now.emplace(id, item);
      }
    };
    UCCP_RETURN_IF_ERROR(session.caller.pages(method, {parsed.wire, 0, false}, on_page));
    for (const auto& [id, item] : known) {
      if (!now.contains(id)) session.note(kind.noun + "/" + printable(id) + " is gone");
    }
    known = std::move(now);
    if (first || !changed.empty()) UCCP_RETURN_IF_ERROR(print_rows(session, *kind.list, changed));
    session.io.sleep_ms(kPollMs);
  }
}

Result<std::string> answer_for(Session& session, const Command& command, Args args, const std::string& name) {
  Request request(*command.method, session.io);
  CommandOptions options;
  const std::vector<Flag> extra = command_flags(session.catalog, request, options);
  const std::vector<Flag> fields = request.flags();
  const std::vector<Flag>* const lists[] = {&extra, &fields, &session.globals};
  UCCP_RETURN_IF_ERROR(parse_flags(args, lists));
  UCCP_RETURN_IF_ERROR(request.set_arguments({name}));
  UCCP_TRY(std::string wire, request.wire());
  return session.caller.unary(*command.method, session.caller.prepared(*command.method, std::move(wire)));
}

// A member of the description: "explain": {...}. Nothing if it cannot be read.
std::string facet(Session& session, const Command& command, Args args, const std::string& name) {
  const Result<std::string> answer = answer_for(session, command, args, name);
  if (!answer) return {};
  const Result<std::string> json = message_json(*command.method->response, *answer, Layout::kCompact);
  return json && *json != "{}" ? "\"" + command.verb + "\":" + *json : "";
}

// The last changes of a resource, as the audit trail has them, newest first; nothing without permission to read it.
std::string recent_changes(Session& session, const std::string& name) {
  const Command* search = session.catalog.find("audit", "search");
  if (search == nullptr || search->method->items == nullptr) return {};
  const call::Method& method = *search->method;
  std::string quoted;
  append_json_string(quoted, name);
  Request request(method, session.io);
  if (!request.set("filter", "resource = " + quoted).is_ok()) return {};
  if (!request.set("page_size", kRecentChanges).is_ok()) return {};
  const Result<std::string> wire = request.wire();
  const Result<std::string> answer =
      wire ? session.caller.unary(method, session.caller.prepared(method, *wire)) : std::unexpected(wire.error());
  const Result<call::FieldPath> path = call::FieldPath::compile(*method.response, method.items->name);
  if (!answer || !path) return {};
  const std::vector<std::string> shown = {"time", "principal", "method", "outcome"};
  const Result<call::FieldTree> only = call::FieldTree::compile(*method.items->message, shown);
  if (!only) return {};
  std::string out;
  for (const std::string_view item : call::get_items(*path, *answer)) {
    const Result<std::string> json =
        call::wire_to_json(*method.items->message, item, {.emit = call::Emit::kSet, .only = &*only});
    if (json) out += (out.empty() ? "" : ",") + *json;
  }
  return out.empty() ? "" : "\"changes\":[" + out + "]";
}

}  // namespace

Result<int> run_each(Session& session, const Command& command, Args args) {
  const auto& cli = *command.method->cli;
  UCCP_TRY(const std::vector<std::string> words, words_of(session, {&command}, args, {}));
  const bool one_each = cli.args.size() == 1 && !cli.args.front().leaf().is_repeated();
  if (session.settings.help || !one_each || words.size() <= 1) return run_command(session, command, args);
  int code = kExitOk;
  for (const std::string& word : words) {
    const Result<std::string> answer = answer_for(session, command, args, word);
    if (!answer) {
      const ErrorContext context{.noun = command.noun, .request_id = session.caller.request_id(), .can_list = true};
      session.io.err(render_error(answer.error(), session.settings, context));
      if (code == kExitOk) code = exit_code(answer.error());
      continue;
    }
    Request request(*command.method, session.io);
    UCCP_RETURN_IF_ERROR(request.set_arguments({word}));
    UCCP_TRY(const std::string wire, request.wire());
    UCCP_RETURN_IF_ERROR(print_answer(session, command, wire, *answer));
  }
  return code;
}

Result<int> run_get(Session& session, Args args) {
  const std::vector<std::string> split = split_first(args);
  if (split.empty() || split.front().starts_with('-')) {
    UCCP_RETURN_IF_ERROR(words_of(session, {}, args, {}));
    if (!session.settings.help) return std::unexpected(usage_error("get takes a kind: get tasks, get role NAME"));
    session.io.out(verbless_help("get"));
    return kExitOk;
  }
  const Kinds kinds(session.catalog);
  UCCP_TRY(const Kind* kind, kinds.find(split.front()));
  const Args rest = Args(split).subspan(1);
  bool watch = false;
  const std::vector<Flag> extra = {switch_of("watch", 'w', "go on with what changes", watch)};
  UCCP_TRY(const std::vector<std::string> words, words_of(session, {kind->list, kind->get, kind->watch}, rest, extra));
  if (session.settings.help) {
    session.io.out(verbless_help("get"));
    return kExitOk;
  }
  const std::vector<std::string> plain = without(rest, {"--watch", "-w"});
  if (watch && kind->watch != nullptr) return run_command(session, *kind->watch, plain);
  if (watch && kind->list != nullptr && words.empty()) return poll(session, *kind, plain);
  if (watch)
    return std::unexpected(
        usage_error("a " + kind->noun + " cannot be watched by name; `uccp-cli wait` waits for one"));
  if (words.empty() && kind->list != nullptr) return run_command(session, *kind->list, plain);
  if (kind->get == nullptr) return run_command(session, *kind->list, plain);
  if (words.size() <= 1 || kind->list == nullptr || kind->list->method->items->message != kind->resource) {
    return run_each(session, *kind->get, plain);
  }
  std::vector<std::string> items;
  for (const std::string& word : words) {
    UCCP_TRY(std::string item, answer_for(session, *kind->get, plain, word));
    items.push_back(std::move(item));
  }
  UCCP_RETURN_IF_ERROR(print_rows(session, *kind->list, items));
  return kExitOk;
}

Result<int> run_describe(Session& session, Args args) {
  const std::vector<std::string> split = split_first(args);
  if (split.empty() || split.front().starts_with('-')) {
    UCCP_RETURN_IF_ERROR(words_of(session, {}, args, {}));
    if (!session.settings.help)
      return std::unexpected(usage_error("describe takes a kind and a name: describe task ID"));
    session.io.out(verbless_help("describe"));
    return kExitOk;
  }
  const Kinds kinds(session.catalog);
  UCCP_TRY(const Kind* kind, kinds.find(split.front()));
  if (kind->get == nullptr) return std::unexpected(usage_error("a " + kind->noun + " cannot be described; list them"));
  const Args rest = Args(split).subspan(1);
  UCCP_TRY(const std::vector<std::string> words, words_of(session, {kind->get}, rest, {}));
  if (session.settings.help) {
    session.io.out(verbless_help("describe"));
    return kExitOk;
  }
  if (words.size() != 1) return std::unexpected(usage_error("describe takes one name"));
  UCCP_TRY(const std::string resource, answer_for(session, *kind->get, rest, words.front()));
  UCCP_TRY(const std::string json, message_json_full(*kind->resource, resource));
  std::string all = "{\"" + kind->noun + "\":" + json;
  for (const Command* command : kind->facets) {
    if (const std::string more = facet(session, *command, rest, words.front()); !more.empty()) all += "," + more;
  }
  if (const std::string changes = recent_changes(session, words.front()); !changes.empty()) all += "," + changes;
  all += "}";
  if (session.settings.machine_errors()) {
    session.io.out(all + "\n");
  } else {
    session.io.out(printable(json_to_yaml(all), Breaks::kKeep));
  }
  return kExitOk;
}

Result<int> run_logs(Session& session, Args args) {
  const Kinds kinds(session.catalog);
  std::vector<const Kind*> with_logs;
  for (const Kind& kind : kinds.all()) {
    if (kind.logs != nullptr) with_logs.push_back(&kind);
  }
  std::vector<std::string> words = split_first(args);
  const bool wants_help =
      std::ranges::any_of(words, [](const std::string& word) { return word == "--help" || word == "-h"; });
  if (words.empty() || wants_help) {
    (wants_help ? session.io.out : session.io.err)(verbless_help("logs"));
    return wants_help ? kExitOk : kExitUsage;
  }
  const Kind* chosen = with_logs.front();
  for (const Kind* kind : with_logs) {
    const Result<std::string> noun = session.catalog.noun(words.front());
    if (!noun || *noun != kind->noun) continue;
    chosen = kind;
    words.erase(words.begin());
    break;
  }
  return run_task_logs(session, *chosen->logs, words);
}

}  // namespace uccp::cli
