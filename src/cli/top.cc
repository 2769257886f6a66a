// `uccp-cli top`: tables of who uses what, the busiest first. A view is data: which list, which columns, sorted by
// what.
#include <algorithm>
#include <array>
#include <charconv>

#include "cli/commands.h"
#include "cli/render.h"
#include "cli/text.h"

namespace uccp::cli {
namespace {

constexpr int64_t kIntervalMs = 2'000;
constexpr uint64_t kRowsMax = 40;
constexpr std::string_view kClearScreen = "\x1b[H\x1b[2J";

struct View {
  std::string_view name;
  std::string_view noun, verb;     // what lists the rows
  std::string_view filter;         // of that list; empty: all
  std::string_view columns;        // paths in an item
  std::string_view usage_verb;     // a read by id that has more columns; empty: none
  std::string_view usage_columns;  // paths in its answer
  std::string_view busiest;        // the column that orders rows, largest first
};

constexpr auto kViews = std::to_array<View>({
    {"workers", "worker", "list", "",
     "id status load.cpu resources.total.cpu load.memoryUsed resources.total.memory load.diskUsed load.loadAverage "
     "runningTasks",
     "", "", "load.cpu"},
    {"tasks", "task", "list", "status = RUNNING", "id name workerId createTime", "metrics",
     "current.cpu current.memory current.diskWriteBytes current.networkSendBytes total.cpuSeconds running",
     "current.cpu"},
    {"nodes", "cluster", "status", "", "nodeId group role status term commitIndex appliedIndex lag version", "", "",
     "commitIndex"},
});

call::CliCommand columns_of(std::string_view paths) {
  call::CliCommand command;
  while (!paths.empty()) {
    const size_t end = std::min(paths.find(' '), paths.size());
    command.columns.emplace_back(paths.substr(0, end));
    paths.remove_prefix(std::min(end + 1, paths.size()));
  }
  return command;
}

struct Row {
  std::vector<std::string> cells;
  double weight = 0;
};

void add_row(Row& row, const Columns& columns, const std::string& json, std::string_view busiest,
             const call::CliCommand& paths) {
  const std::vector<std::string> cells = columns.cells(json);
  const std::vector<std::string> values = columns.values(json);
  row.cells.insert(row.cells.end(), cells.begin(), cells.end());
  for (size_t at = 0; at < paths.columns.size(); ++at) {
    if (paths.columns[at] == busiest) row.weight = std::strtod(values[at].c_str(), nullptr);
  }
}

Result<std::string> usage_of(Session& session, const Command& command, const std::string& id) {
  Request request(*command.method, session.io);
  UCCP_RETURN_IF_ERROR(request.set_arguments({id}));
  UCCP_TRY(std::string wire, request.wire());
  UCCP_TRY(const std::string answer,
           session.caller.unary(*command.method, session.caller.prepared(*command.method, wire)));
  return message_json_full(*command.method->response, answer);
}

Result<std::vector<std::string>> items_of(Session& session, const View& view, const Command& list) {
  const call::Method& method = *list.method;
  Request request(method, session.io);
  if (!view.filter.empty()) UCCP_RETURN_IF_ERROR(request.set("filter", view.filter));
  UCCP_TRY(std::string wire, request.wire());
  wire = session.caller.prepared(method, std::move(wire));
  UCCP_TRY(const call::FieldPath path, call::FieldPath::compile(*method.response, method.items->name));
  std::vector<std::string> items;
  const auto take = [&](const std::string& response) {
    for (const std::string_view item : call::get_items(path, response)) items.emplace_back(item);
  };
  if (method.paging) {
    UCCP_RETURN_IF_ERROR(session.caller.pages(method, {wire, 0, false}, take));
    return items;
  }
  UCCP_TRY(const std::string response, session.caller.unary(method, wire));
  take(response);
  return items;
}

Result<std::string> table_of(Session& session, const View& view, uint64_t rows_max) {
  const Command* list = session.catalog.find(view.noun, view.verb);
  const Command* usage = view.usage_verb.empty() ? nullptr : session.catalog.find(view.noun, view.usage_verb);
  if (list == nullptr || list->method->items == nullptr)
    return fail(Code::kInternal, "VIEW_BROKEN", "no list for this view");
  UCCP_TRY(std::vector<std::string> items, items_of(session, view, *list));
  const call::MessagePlan& plan = *list->method->items->message;
  const call::CliCommand paths = columns_of(view.columns);
  const call::CliCommand usage_paths = columns_of(view.usage_columns);
  const Columns columns(plan, paths, Format::kTable, session.io.wall_us());
  std::vector<std::vector<std::string>> table = {columns.headings()};
  std::vector<Row> rows;
  // Each row of such a view costs a call of its own.
  if (usage != nullptr && items.size() > rows_max) items.resize(rows_max);
  for (const std::string& item : items) {
    Row row;
    UCCP_TRY(const std::string json, message_json_full(plan, item));
    add_row(row, columns, json, view.busiest, paths);
    if (usage != nullptr) {
      const Columns more(*usage->method->response, usage_paths, Format::kTable, session.io.wall_us());
      const Result<std::string> used = usage_of(session, *usage, resource_id(plan, item));
      add_row(row, more, used ? *used : "{}", view.busiest, usage_paths);
    }
    rows.push_back(std::move(row));
  }
  if (usage != nullptr) {
    const Columns more(*usage->method->response, usage_paths, Format::kTable, 0);
    const std::vector<std::string> headings = more.headings();
    table.front().insert(table.front().end(), headings.begin(), headings.end());
  }
  std::ranges::sort(
      rows, [](const Row& a, const Row& b) { return a.weight != b.weight ? a.weight > b.weight : a.cells < b.cells; });
  if (rows.size() > rows_max) rows.resize(rows_max);
  for (Row& row : rows) table.push_back(std::move(row.cells));
  return render_table(table, &session.paint);
}

Result<const View*> view_named(const std::string& word) {
  std::vector<std::string> known;
  for (const View& view : kViews) {
    if (word == view.name || word + "s" == view.name) return &view;
    known.emplace_back(view.name);
  }
  return std::unexpected(usage_error("top shows " + join(known, ", ") + ", not \"" + printable(word) + "\""));
}

}  // namespace

Result<int> run_top(Session& session, Args args) {
  int64_t interval_ms = kIntervalMs;
  uint64_t rows_max = kRowsMax;
  bool once = false;
  const std::vector<Flag> extra = {
      {.names = {"interval"},
       .value_name = "DURATION",
       .help = "between two looks; default 2s",
       .set = [&](std::string_view text) -> Status {
         UCCP_TRY(interval_ms, parse_timeout_ms(text));
         return interval_ms > 0 ? Status::ok() : usage_error("--interval is longer than nothing");
       }},
      {.names = {"limit"},
       .value_name = "NUMBER",
       .help = "most rows; default 40",
       .set =
           [&](std::string_view text) {
             const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), rows_max);
             const bool good = error == std::errc() && end == text.data() + text.size() && rows_max > 0;
             return good ? Status::ok()
                         : usage_error("--limit takes a number from 1, got \"" + std::string(text) + "\"");
           }},
      {.names = {"once"}, .is_switch = true, .help = "one look", .set = [&](std::string_view text) {
         once = text == "true";
         return Status::ok();
       }}};
  const std::vector<Flag>* const lists[] = {&extra, &session.globals};
  UCCP_TRY(const std::vector<std::string> words, parse_flags(args, lists));
  if (session.settings.help) {
    session.io.out(verbless_help("top"));
    return kExitOk;
  }
  if (words.size() > 1) return std::unexpected(usage_error("top takes one view"));
  UCCP_TRY(const View* view, view_named(words.empty() ? "workers" : words.front()));
  if (once || !session.io.out_is_terminal) {
    UCCP_TRY(const std::string table, table_of(session, *view, rows_max));
    session.io.out(table);
    return kExitOk;
  }
  for (;;) {
    UCCP_TRY(const std::string table, table_of(session, *view, rows_max));
    session.io.out(std::string(kClearScreen) + "top " + std::string(view->name) + ", each " +
                   std::to_string(interval_ms / 1000) + "s; Ctrl-C ends\n\n" + table);
    session.io.sleep_ms(interval_ms);
  }
}

}  // namespace uccp::cli
