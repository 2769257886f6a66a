// `uccp-cli wait NOUN ID --for FIELD=VALUE|deleted`: asks for the resource until it is as wanted.
#include <algorithm>

#include "cli/commands.h"
#include "cli/json_path.h"
#include "cli/render.h"
#include "cli/text.h"

namespace uccp::cli {
namespace {

constexpr int64_t kWaitTimeoutMs = 5 * 60 * 1000;
constexpr int64_t kFirstPauseMs = 100;
constexpr int64_t kLongestPauseMs = 1'000;
constexpr std::string_view kDeleted = "deleted";

struct Wanted {
  bool deleted = false;
  std::string field;
  JsonPath path;
  std::vector<std::string> values;
};

Result<Wanted> parse_wanted(const std::string& text) {
  Wanted wanted;
  if (text == kDeleted) {
    wanted.deleted = true;
    return wanted;
  }
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    return std::unexpected(usage_error("--for takes FIELD=VALUE or `deleted`, got \"" + printable(text) + "\""));
  }
  wanted.field = text.substr(0, equals);
  const bool braced = wanted.field.contains('{');
  UCCP_TRY(wanted.path, JsonPath::parse(braced ? wanted.field : "{." + wanted.field + "}"));
  std::string_view rest = std::string_view(text).substr(equals + 1);
  for (;;) {
    const size_t end = std::min(rest.find(','), rest.size());
    wanted.values.emplace_back(rest.substr(0, end));
    if (end == rest.size()) return wanted;
    rest.remove_prefix(end + 1);
  }
}

}  // namespace

Result<int> run_wait(Session& session, Args args) {
  std::string condition;
  const std::vector<Flag> extra = {{.names = {"for"},
                                    .value_name = "FIELD=VALUE",
                                    .help = "what to wait for",
                                    .set = [&condition](std::string_view text) {
                                      condition = std::string(text);
                                      return Status::ok();
                                    }}};
  const std::vector<Flag>* const lists[] = {&extra, &session.globals};
  UCCP_TRY(const std::vector<std::string> words, parse_flags(args, lists));
  if (session.settings.help) {
    session.io.out(verbless_help("wait"));
    return kExitOk;
  }
  if (words.size() != 2) return std::unexpected(usage_error("wait takes a noun and an id"));
  if (condition.empty())
    return std::unexpected(usage_error("say what to wait for: --for FIELD=VALUE, or --for deleted"));
  UCCP_TRY(const Wanted wanted, parse_wanted(condition));
  UCCP_TRY(const std::string noun, session.catalog.noun(words[0]));
  UCCP_TRY(const Command* get, session.catalog.command(noun, "get"));
  const call::Method& method = *get->method;
  Request request(method, session.io);
  UCCP_RETURN_IF_ERROR(request.set_arguments({words[1]}));
  UCCP_TRY(const std::string built, request.wire());
  const std::string wire = session.caller.prepared(method, built);

  const int64_t allowed_ms = session.settings.timeout_ms > 0 ? session.settings.timeout_ms : kWaitTimeoutMs;
  const int64_t end_us = session.io.wall_us() + allowed_ms * 1000;
  std::string seen = "absent";
  for (int64_t pause_ms = kFirstPauseMs;; pause_ms = std::min(pause_ms * 2, kLongestPauseMs)) {
    const Result<std::string> response = session.caller.unary(method, wire);
    if (!response && response.error().code() != Code::kNotFound) return std::unexpected(response.error());
    if (response && !wanted.deleted) {
      UCCP_TRY(const std::string json, message_json_full(*method.response, *response));
      seen = wanted.path.apply(json);
    }
    if (response ? !wanted.deleted && std::ranges::find(wanted.values, seen) != wanted.values.end() : wanted.deleted) {
      if (!session.settings.quiet) {
        session.io.out(noun + "/" + printable(words[1]) +
                       (wanted.deleted ? " deleted" : " " + wanted.field + "=" + printable(seen)) + "\n");
      }
      return kExitOk;
    }
    // An absent one may still be made; one that must not be there cannot become a value.
    if (session.io.wall_us() + pause_ms * 1000 > end_us) break;
    session.io.sleep_ms(pause_ms);
  }
  return fail(Code::kDeadline, "WAIT_TIMEOUT",
              noun + "/" + printable(words[1]) + " was not " + printable(condition) + " in time" +
                  (wanted.deleted ? "" : "; " + wanted.field + " is " + (seen.empty() ? "empty" : printable(seen))));
}

}  // namespace uccp::cli
