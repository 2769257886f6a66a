#include "cli/errors.h"

#include "base/json.h"
#include "call/error_json.h"
#include "cli/text.h"

namespace uccp::cli {
namespace {

std::string unavailable_hint(const Status& status) {
  const std::string_view reason = status.reason();
  if (reason == "TLS_FAILED") return "check that --ca is the authority of this cluster and that the clocks agree";
  if (reason.starts_with("CONNECT"))
    return "check that the cluster runs and that --server or the context file names it";
  return "try again; `uccp-cli health` shows the state of the cluster";
}

// problem+json with what only this program knows.
std::string machine_error(const Status& status, const ErrorContext& context) {
  std::string json = call::to_problem_json(status);
  const std::string hint = hint_for(status, context);
  const auto add = [&json](std::string_view key, const std::string& value) {
    if (value.empty()) return;
    json.pop_back();
    json += ",\"" + std::string(key) + "\":";
    append_json_string(json, value);
    json += "}";
  };
  add("hint", hint);
  add("requestId", context.request_id);
  return json;
}

}  // namespace

std::string hint_for(const Status& status, const ErrorContext& context) {
  if (status.reason() == "CONTEXT_INVALID") {
    return "name the cluster with --context-file FILE, UCCP_CONTEXT_FILE or --server HOST:PORT --ca FILE --token TOKEN";
  }
  switch (status.code()) {
    case Code::kNotFound: return context.can_list ? "`uccp-cli " + context.noun + " list` shows what there is" : "";
    case Code::kUnauthenticated: return "give credentials: --token, UCCP_TOKEN, or --cert and --key";
    case Code::kPermission: return "ask for the permission, or use another credential";
    case Code::kConflict: return "read the resource again, then repeat the command";
    case Code::kExhausted:
      return status.detail().retry_after_ms == 0
                 ? "try again later"
                 : "try again in " + std::to_string(status.detail().retry_after_ms) + " ms";
    case Code::kUnavailable:
    case Code::kNotLeader: return unavailable_hint(status);
    case Code::kDeadline:
      return status.reason() == "WAIT_TIMEOUT" ? "give it more time with --timeout"
                                               : "give it more time with --call-timeout";
    case Code::kOutcomeUnknown:
      return context.request_id.empty() ? "look whether the change was made before repeating it"
                                        : "repeat the command with --request-id " + context.request_id +
                                              ": the change is then made once, whatever happened";
    default: return {};
  }
}

std::string render_error(const Status& status, const Settings& settings, const ErrorContext& context) {
  if (settings.machine_errors()) return machine_error(status, context) + "\n";
  std::string out = "error: " + printable(status.message()) + "\n";
  for (const FieldViolation& field : status.detail().fields) {
    // One wrong field is often the message itself.
    if (field.example.empty() && status.message().find(field.description) != std::string::npos) continue;
    out += "  " + printable(field.field) + ": " + printable(field.description);
    if (!field.example.empty()) out += " (example: " + printable(field.example) + ")";
    out.push_back('\n');
  }
  const std::string hint = hint_for(status, context);
  if (!hint.empty()) out += "hint: " + hint + "\n";
  if (!status.detail().help.empty()) out += "see: docs/" + printable(status.detail().help) + "\n";
  return out;
}

Status located(const std::string& where, const Status& status) {
  Status out(status.code(), status.reason(), where + ": " + status.message());
  const StatusDetail& detail = status.detail();
  for (const FieldViolation& one : detail.fields) {
    out = std::move(out).with_field(one.field, one.description, one.example);
  }
  if (!detail.resource_type.empty()) out = std::move(out).with_resource(detail.resource_type, detail.resource_name);
  if (!detail.help.empty()) out = std::move(out).with_help(detail.help);
  if (detail.retry_after_ms > 0) out = std::move(out).with_retry_after_ms(detail.retry_after_ms);
  return out;
}

int exit_code(const Status& status) { return code_info(status.code()).exit; }

std::string exit_code_help() {
  return "Exit codes\n"
         "  0    done; with `task submit --wait` or --follow: the task SUCCEEDED\n"
         "  1    an error that no other number names; a task that was waited for did not succeed\n"
         "  2    the command line or the request is wrong\n"
         "  3    there is no such thing\n"
         "  4    no valid credentials, or they do not allow this\n"
         "  5    it exists already, or its state or version is not the one needed\n"
         "  6    out of time, or it is not known whether the change was made\n"
         "  7    the cluster cannot be reached or is at a limit: try again later\n"
         "  130  interrupted with Ctrl-C\n";
}

}  // namespace uccp::cli
