// `uccp-cli explain NOUN[.FIELD...]`: what a resource is made of, with the comments of the contract.
#include <algorithm>

#include "cli/commands.h"
#include "cli/text.h"

namespace uccp::cli {
namespace {

// The message of a noun: what `get` answers, else the items of `list`, else the answer of any of its commands.
const call::MessagePlan* resource_of(const Session& session, const std::string& noun) {
  if (const Command* get = session.catalog.find(noun, "get"); get != nullptr && get->method->items == nullptr) {
    return get->method->response;
  }
  if (const Command* list = session.catalog.find(noun, "list"); list != nullptr && list->method->items != nullptr) {
    return list->method->items->message;
  }
  return session.catalog.commands(noun).front()->method->response;
}

std::string kind_text(const call::FieldPlan& field) {
  using call::Kind;
  if (field.enumeration != nullptr) return field.is_repeated() ? "list of words" : "word";
  std::string kind;
  switch (field.kind) {
    case Kind::kBool: kind = "bool"; break;
    case Kind::kString: kind = "text"; break;
    case Kind::kBytes: kind = "bytes"; break;
    case Kind::kMessage:
      kind = field.message == nullptr                                   ? "object"
             : field.message->well_known == call::WellKnown::kDuration  ? "duration"
             : field.message->well_known == call::WellKnown::kTimestamp ? "time"
                                                                        : "object";
      break;
    default: kind = field.byte_size ? "size" : "number";
  }
  if (field.is_map()) return "map";
  return field.is_repeated() ? "list of " + kind + (kind == "bytes" ? "" : "s") : kind;
}

std::string one_field(const Session& session, const call::MessagePlan& plan, const call::FieldPlan& field) {
  std::string out = "  " + field.json_name + "  <" + kind_text(field) + ">";
  if (field.required) out += "  required";
  if (field.output_only) out += "  set by the server";
  out += "\n";
  const std::string what = session.docs.sentence(plan.full_name + "." + field.name);
  if (!what.empty()) out += "      " + wrapped(what, 6, 100) + "\n";
  if (field.enumeration != nullptr) out += "      one of " + wrapped(field.enumeration->names(), 6, 100) + "\n";
  return out;
}

const call::FieldPlan* field_named(const call::MessagePlan& plan, std::string_view name) {
  for (const call::FieldPlan& field : plan.fields) {
    if (field.json_name == name || field.name == name || to_kebab(field.name) == name) return &field;
  }
  return nullptr;
}

}  // namespace

Result<int> run_explain(Session& session, Args args) {
  const std::vector<Flag>* const lists[] = {&session.globals};
  UCCP_TRY(const std::vector<std::string> words, parse_flags(args, lists));
  if (words.size() != 1) return std::unexpected(usage_error("explain takes a noun, or NOUN.FIELD: explain task.retry"));
  std::string_view rest = words.front();
  const auto next = [&rest] {
    const size_t end = std::min(rest.find('.'), rest.size());
    const std::string_view word = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    return word;
  };
  UCCP_TRY(const std::string noun, session.catalog.noun(next()));
  const call::MessagePlan* plan = resource_of(session, noun);
  std::string comment(session.docs.comment(plan->full_name));
  std::string path = noun;
  while (!rest.empty()) {
    const std::string_view name = next();
    const call::FieldPlan* field = field_named(*plan, name);
    if (field == nullptr) {
      std::vector<std::string> known;
      for (const call::FieldPlan& one : plan->fields) known.push_back(one.json_name);
      const std::string near = nearest(name, known);
      return std::unexpected(usage_error(path + " has no field \"" + printable(name) + "\"" +
                                         (near.empty() ? "" : "; did you mean \"" + near + "\"?")));
    }
    comment = session.docs.comment(plan->full_name + "." + field->name);
    path += "." + field->json_name;
    const bool inside = field->kind == call::Kind::kMessage && field->message != nullptr &&
                        field->message->well_known == call::WellKnown::kNone && !field->is_map();
    if (!inside) {
      if (!rest.empty()) return std::unexpected(usage_error(path + " is no object and has no fields"));
      session.io.out(path + "  <" + kind_text(*field) + ">\n\n" + comment + "\n");
      if (field->enumeration != nullptr) session.io.out("One of " + field->enumeration->names() + ".\n");
      return kExitOk;
    }
    plan = field->message;
  }
  std::string out = path + "  <object>\n\n" + comment + (comment.ends_with('\n') ? "" : "\n") + "\nFields\n";
  for (const call::FieldPlan& field : plan->fields) {
    if (!field.deprecated) out += one_field(session, *plan, field);
  }
  session.io.out(out);
  return kExitOk;
}

}  // namespace uccp::cli
