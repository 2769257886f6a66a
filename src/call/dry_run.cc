#include "call/dry_run.h"

#include "call/validate.h"

namespace uccp::call {
namespace {

constexpr std::string_view kField = "validate_only";

// The texts that request and answer both have by the same name: what the change was about.
std::string names_of(const Method& method, std::string_view request) {
  std::string out;
  for (const FieldPlan& field : method.response->fields) {
    const FieldPlan* sent = method.request->by_name(field.name);
    const auto is_name = [](const FieldPlan& one) {
      return one.kind == Kind::kString && one.shape == Shape::kSingular && !one.redact;
    };
    if (sent == nullptr || !is_name(field) || !is_name(*sent)) continue;
    const Result<FieldPath> path = FieldPath::compile(*method.request, sent->name);
    if (const auto text = path ? get_string(*path, request) : std::nullopt) put_bytes(out, field.number, *text);
  }
  return out;
}

}  // namespace

bool checks_dry_runs(const Method& method) { return method.request->by_name(kField) != nullptr; }

Status prepare_dry_run(const Method& method, std::string& request) {
  const bool unary = !method.client_streaming && !method.server_streaming;
  if (!method.mutating || !unary || method.is_public) {
    const std::string what = "is not offered by " + method.name + ": it " +
                             (!method.mutating ? "changes nothing"
                              : unary          ? "needs no credentials"
                                               : "is a stream");
    return Status(Code::kInvalid, "DRY_RUN_UNSUPPORTED", "a dry run " + what).with_field("dryRun", what);
  }
  if (checks_dry_runs(method)) set_uint(*FieldPath::compile(*method.request, kField), request, 1);
  return Status::ok();
}

std::string dry_run_answer(const Method& method, std::string_view request) {
  for (const FieldPlan& field : method.request->fields) {
    if (!field.is_message() || field.message != method.response) continue;
    const Result<FieldPath> path = FieldPath::compile(*method.request, field.name);
    std::string sent = path ? get_message(*path, request).value_or("") : "";
    if (method.request->by_name("update_mask") != nullptr) {
      // A part of a resource is none: what is said of it is its name.
      const std::vector<std::string> name = {method.resource.empty() ? std::string() : method.resource.leaf().name};
      const Result<FieldTree> only = FieldTree::compile(*method.response, name);
      sent = only ? project(*method.response, sent, *only).value_or("") : "";
    }
    // Without what the client had no say in.
    return canonical(*method.response, sent).value_or("");
  }
  return names_of(method, request);
}

}  // namespace uccp::call
