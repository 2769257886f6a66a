// The commands of one word: api, version, health.
#include "cli/commands.h"
#include "cli/help.h"
#include "cli/output.h"
#include "cli/render.h"
#include "cli/text.h"
#include "cli/yaml.h"

#ifndef UCCP_VERSION
#define UCCP_VERSION "unversioned"
#endif

namespace uccp::cli {
namespace {

constexpr std::string_view kVersionMethod = "uccp.v1.Administration/GetVersion";
constexpr std::string_view kHealthMethod = "uccp.v1.Administration/GetHealth";

void list_methods(Session& session) {
  for (const call::Method& method : session.catalog.contract().methods()) session.io.out(method.full_name + "\n");
}

}  // namespace

Result<int> run_api(Session& session, Args args) {
  const std::vector<Flag>* const lists[] = {&session.globals};
  UCCP_TRY(const std::vector<std::string> rest, parse_flags(args, lists, {.stop_at_positional = true}));
  if (session.settings.help) {
    session.io.out(api_help());
    return kExitOk;
  }
  if (rest.empty()) {
    list_methods(session);
    return kExitOk;
  }
  UCCP_TRY(const call::Method* method, session.catalog.method(rest.front()));
  Request request(*method, session.io);
  const RequestRules rules{.body_form = BodyForm::kWhole, .takes_arguments = false};
  UCCP_TRY(const ParsedRequest parsed, parse_request(session, request, Args(rest).subspan(1), {}, rules));
  if (parsed.wants_help) {
    session.io.out(api_help());
    return kExitOk;
  }
  // The raw answer: nothing is picked out of it.
  if (session.settings.format != Format::kYaml && session.settings.format != Format::kJsonl) {
    session.settings.format = Format::kJson;
  }
  if (method->server_streaming || method->client_streaming) {
    return perform(session, {"api", method->name, method}, parsed.wire, 0);
  }
  UCCP_TRY(const std::string response, session.caller.unary(*method, parsed.wire));
  call::Method whole = *method;
  whole.items = nullptr;
  UCCP_RETURN_IF_ERROR(print_answer(session, {"api", method->name, &whole}, parsed.wire, response));
  return kExitOk;
}

Result<int> run_version(Session& session, Args args) {
  bool client_only = false;
  const std::vector<Flag> extra = {{.names = {"client"},
                                    .is_switch = true,
                                    .help = "do not ask the server",
                                    .set = [&client_only](std::string_view text) {
                                      client_only = text == "true";
                                      return Status::ok();
                                    }}};
  const std::vector<Flag>* const lists[] = {&extra, &session.globals};
  UCCP_RETURN_IF_ERROR(parse_flags(args, lists));
  const bool as_json = session.settings.machine_errors();
  if (client_only) {
    session.io.out(as_json ? "{\"client\":{\"version\":\"" UCCP_VERSION "\"}}\n" : "client: " UCCP_VERSION "\n");
    return kExitOk;
  }
  const call::Method& method = *session.catalog.contract().find(kVersionMethod);
  if (!as_json) session.io.out("client: " UCCP_VERSION "\n");
  UCCP_TRY(const std::string response, session.caller.unary(method, ""));
  UCCP_TRY(const std::string json, message_json(*method.response, response, Layout::kCompact));
  const std::string server = R"("server":)" + json + "}";
  if (as_json) {
    session.io.out("{\"client\":{\"version\":\"" UCCP_VERSION "\"}," + server + "\n");
  } else {
    session.io.out(printable(json_to_yaml("{" + server), Breaks::kKeep));
  }
  return kExitOk;
}

Result<int> run_health(Session& session, Args args) {
  const call::Method& method = *session.catalog.contract().find(kHealthMethod);
  Request request(method, session.io);
  UCCP_TRY(const ParsedRequest parsed, parse_request(session, request, args, {}));
  const Command command{"cluster", "health", &method};
  if (parsed.wants_help) {
    session.io.out(command_help(session, command, {}));
    return kExitOk;
  }
  UCCP_TRY(const std::string response, session.caller.unary(method, parsed.wire));
  UCCP_TRY(const call::FieldPath status, call::FieldPath::compile(*method.response, "status"));
  const std::string word = call::get_text(status, response).value_or("");
  if (session.settings.quiet) {
    session.io.out(printable(word) + "\n");
  } else {
    UCCP_RETURN_IF_ERROR(print_answer(session, command, parsed.wire, response));
  }
  // Scripts wait for a cluster with `until uccp-cli health`.
  return word == "HEALTHY" || word == "DEGRADED" ? kExitOk : code_info(Code::kUnavailable).exit;
}

// Global flags in front of the word are flags of the module as well.
Result<int> run_workflow(Session& session, Args args) {
  if (args.empty()) {
    session.io.err(verbless_help("workflow"));
    return kExitUsage;
  }
  std::vector<std::string> words = session.prefix;
  words.insert(words.end(), args.begin(), args.end());
  return std::unexpected(session.io.become_python("uccp.workflow", words));
}

}  // namespace uccp::cli
