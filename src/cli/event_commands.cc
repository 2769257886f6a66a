// `publish` and `subscribe`: events from and to the shell, one payload a line.
#include <charconv>

#include "base/bytes.h"
#include "call/wire.h"
#include "cli/commands.h"
#include "cli/json_path.h"
#include "cli/output.h"
#include "cli/render.h"
#include "cli/text.h"

namespace uccp::cli {
namespace {

const call::Method& method_named(const Session& session, std::string_view name) {
  return *session.catalog.contract().find(name);
}

Flag field_flag(Request& event, std::string name, std::string value_name, std::string help, std::string path) {
  return Flag{.names = {std::move(name)},
              .value_name = std::move(value_name),
              .help = std::move(help),
              .set = [&event, path = std::move(path)](std::string_view text) { return event.set(path, text); }};
}

Flag max_flag(std::string& max) {
  return Flag{.names = {"max"},
              .value_name = "NUMBER",
              .help = "end after so many events",
              .set = [&max](std::string_view text) {
                uint64_t number = 0;
                const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
                if (error == std::errc() && end == text.data() + text.size() && number > 0 && number <= INT32_MAX) {
                  max = std::string(text);
                  return Status::ok();
                }
                return usage_error("--max takes a number from 1, got \"" + std::string(text) + "\"");
              }};
}

// Prints the payload alone.
class PayloadPrinter {
 public:
  static Result<PayloadPrinter> make(const Session& session, const call::MessagePlan& item) {
    PayloadPrinter printer(session, item);
    UCCP_TRY(printer.text_, call::FieldPath::compile(item, "event.text"));
    UCCP_TRY(printer.data_, call::FieldPath::compile(item, "event.data"));
    UCCP_TRY(printer.event_, call::FieldPath::compile(item, "event"));
    UCCP_TRY(printer.json_, JsonPath::parse("{.event.json}"));
    return printer;
  }

  Status print(const std::string& item) const {
    if (!call::has_field(event_, item)) return Status::ok();
    std::string line;
    if (call::has_field(text_, item)) line = std::string(call::get_string(text_, item).value_or(""));
    else if (call::has_field(data_, item)) line = std::string(call::get_string(data_, item).value_or(""));
    else {
      UCCP_TRY(const std::string json, message_json_full(item_, item));
      line = json_.apply(json);
    }
    session_.io.out(line + "\n");
    return Status::ok();
  }

 private:
  PayloadPrinter(const Session& session, const call::MessagePlan& item) : session_(session), item_(item) {}

  const Session& session_;
  const call::MessagePlan& item_;
  call::FieldPath text_, data_, event_;
  JsonPath json_;
};

}  // namespace

Result<int> run_publish(Session& session, Args args) {
  const call::Method& method = method_named(session, "uccp.v1.EventBus/Publish");
  const call::FieldPlan* events = method.request->by_name("events");
  // The flags of an event are those of a request that holds one.
  std::string key, type, transaction;
  std::vector<std::string> headers;
  const auto text_flag = [](std::string name, std::string value_name, std::string help, std::string& target) {
    return Flag{.names = {std::move(name)},
                .value_name = std::move(value_name),
                .help = std::move(help),
                .set = [&target](std::string_view text) {
                  target = std::string(text);
                  return Status::ok();
                }};
  };
  std::vector<Flag> extra = {text_flag("key", "KEY", "events with the same key stay in order", key),
                             text_flag("type", "TYPE", "kind of event", type),
                             text_flag("transaction", "ID", "counts when that transaction is committed", transaction)};
  extra.push_back({.names = {"header"},
                   .value_name = "NAME=VALUE",
                   .help = "a header; may be repeated",
                   .set = [&headers](std::string_view text) {
                     if (text.find('=') == std::string_view::npos || text.front() == '=') {
                       return usage_error("--header takes NAME=VALUE, got \"" + std::string(text) + "\"");
                     }
                     headers.emplace_back(text);
                     return Status::ok();
                   }});
  const std::vector<Flag>* const lists[] = {&extra, &session.globals};
  UCCP_TRY(const std::vector<std::string> words, parse_flags(args, lists));
  const Settings& settings = session.settings;
  if (settings.help) {
    session.io.out(verbless_help("publish"));
    return kExitOk;
  }
  if (words.size() != 1) return std::unexpected(usage_error("publish takes one topic; the content comes by --data"));
  if (settings.data.empty() == settings.data_file.empty()) {
    return std::unexpected(usage_error("give the content by --data STRING or by --file FILE"));
  }
  std::string content = settings.data;
  if (!settings.data_file.empty()) {
    UCCP_TRY(content, session.io.read_file(settings.data_file));
  }
  const call::MessagePlan& plan = *events->message;
  std::string event;
  if (!key.empty()) call::put_bytes(event, plan.by_name("key")->number, key);
  if (!type.empty()) call::put_bytes(event, plan.by_name("type")->number, type);
  for (const std::string& header : headers) {
    const size_t equals = header.find('=');
    const size_t mark = call::begin_bytes(event, plan.by_name("headers")->number);
    call::put_bytes(event, 1, std::string_view(header).substr(0, equals));
    call::put_bytes(event, 2, std::string_view(header).substr(equals + 1));
    call::end_bytes(event, mark);
  }
  call::put_bytes(event, plan.by_name(is_utf8(content) ? "text" : "data")->number, content);
  Request request(method, session.io);
  UCCP_RETURN_IF_ERROR(request.set("topic", words.front()));
  if (!transaction.empty()) UCCP_RETURN_IF_ERROR(request.set("transaction_id", transaction));
  UCCP_TRY(std::string wire, request.wire());
  call::put_bytes(wire, events->number, event);
  const std::string prepared = session.caller.prepared(method, std::move(wire));
  UCCP_TRY(const std::string response, session.caller.unary(method, prepared));
  const Command shown{"event", "publish", &method};
  UCCP_RETURN_IF_ERROR(print_answer(session, shown, prepared, response));
  return kExitOk;
}

Result<int> run_subscribe(Session& session, Args args) {
  const call::Method& method = method_named(session, "uccp.v1.EventBus/Subscribe");
  Request request(method, session.io);
  bool follow = false;
  std::string since, max;
  std::vector<Flag> extra = {max_flag(max),
                             field_flag(request, "filter", "CONDITION", "only events for which it holds", "filter")};
  extra.push_back({.names = {"since"},
                   .value_name = "start|CURSOR",
                   .help = "where to begin",
                   .set = [&since](std::string_view text) {
                     since = std::string(text);
                     return Status::ok();
                   }});
  extra.push_back(
      {.names = {"follow"}, .is_switch = true, .help = "wait for more events", .set = [&follow](std::string_view text) {
         follow = text == "true";
         return Status::ok();
       }});
  const std::vector<Flag>* const lists[] = {&extra, &session.globals};
  UCCP_TRY(const std::vector<std::string> words, parse_flags(args, lists));
  if (session.settings.help) {
    session.io.out(verbless_help("subscribe"));
    return kExitOk;
  }
  if (words.empty()) return std::unexpected(usage_error("subscribe takes one topic or more"));
  for (const std::string& topic : words) UCCP_RETURN_IF_ERROR(request.set("topics", topic));
  if (!max.empty()) UCCP_RETURN_IF_ERROR(request.set("limit", max));
  if (!follow) UCCP_RETURN_IF_ERROR(request.set("no_follow", "true"));
  const bool from_start = since == "start" || (since.empty() && !follow);
  if (from_start) UCCP_RETURN_IF_ERROR(request.set("start", "earliest"));
  else if (!since.empty()) UCCP_RETURN_IF_ERROR(request.set("since", since));
  UCCP_TRY(std::string wire, request.wire());
  const std::string prepared = session.caller.prepared(method, std::move(wire));
  const bool payload_only = session.settings.format == Format::kTable;
  const Command shown{"event", "subscribe", &method};
  StreamPrinter rows(session, shown);
  UCCP_TRY(const PayloadPrinter payloads, PayloadPrinter::make(session, *method.response));
  Status printed;
  const Status ended = session.caller.stream(method, prepared, [&](const std::string& item) {
    printed = payload_only ? payloads.print(item) : rows.print(item);
    return printed.is_ok();
  });
  UCCP_RETURN_IF_ERROR(printed);
  UCCP_RETURN_IF_ERROR(ended);
  return kExitOk;
}

}  // namespace uccp::cli
