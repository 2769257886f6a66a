#include "cli/manifest.h"

#include <simdjson.h>

#include <algorithm>

#include "call/json_codec.h"
#include "call/validate.h"
#include "cli/errors.h"
#include "cli/render.h"
#include "cli/text.h"
#include "cli/yaml.h"

namespace uccp::cli {
namespace {

using call::FieldPath;
using call::FieldPlan;
using call::FieldTree;
using call::MessagePlan;
using simdjson::dom::element;

constexpr std::string_view kNameSpace = "namespace";

// Fields of a request that are about the call and not about what it makes.
bool is_about_the_call(std::string_view name) {
  return name == "request_id" || name == "if_match" || name == "validate_only" || name == "update_mask" ||
         name == "tenant";
}

const MessagePlan& plan_of(const Kind& kind) {
  const Command* command = kind.create != nullptr ? kind.create : kind.put;
  const FieldPlan* field = resource_field(*command->method);
  return field != nullptr ? *field->message : *command->method->request;
}

bool has_members(const FieldPlan& field) {
  return field.is_message() && field.message->well_known == call::WellKnown::kNone;
}

void written_fields(const element& value, const MessagePlan& plan, const std::string& prefix,
                    std::vector<std::string>& out) {
  simdjson::dom::object object;
  if (value.get(object) != simdjson::SUCCESS) return;
  for (const auto& member : object) {
    const FieldPlan* field = plan.by_name(member.key);
    if (field == nullptr || field->output_only) continue;
    const std::string path = prefix + field->name;
    if (has_members(*field) && member.value.is_object()) {
      written_fields(member.value, *field->message, path + ".", out);
    } else {
      out.push_back(path);
    }
  }
}

// All leaves that can be set.
void settable_fields(const MessagePlan& plan, const std::string& prefix, int depth, std::vector<std::string>& out) {
  for (const FieldPlan& field : plan.fields) {
    if (field.output_only || (prefix.empty() && is_about_the_call(field.name))) continue;
    const std::string path = prefix + field.name;
    if (has_members(field) && depth < call::kDepthMax / 4) {
      settable_fields(*field.message, path + ".", depth + 1, out);
    } else {
      out.push_back(path);
    }
  }
}

std::string text_of(const MessagePlan& plan, std::string_view name, std::string_view wire) {
  if (plan.by_name(name) == nullptr) return {};
  const Result<FieldPath> path = FieldPath::compile(plan, name);
  return path ? call::get_text(*path, wire).value_or("") : "";
}

// What `get` answers in terms of the plan that is declared: the same type, or the members that both have.
Result<std::string> as_declared(const Wanted& wanted, const std::string& resource) {
  if (wanted.plan == wanted.kind->resource) return resource;
  UCCP_TRY(const std::string json, message_json_full(*wanted.kind->resource, resource));
  simdjson::dom::parser parser;
  element root;
  simdjson::dom::object object;
  if (parser.parse(simdjson::padded_string(json)).get(root) != simdjson::SUCCESS ||
      root.get(object) != simdjson::SUCCESS) {
    return std::string();
  }
  std::string out;
  for (const auto& member : object) {
    const FieldPlan* field = wanted.plan->by_name(member.key);
    const FieldPlan* theirs = wanted.kind->resource->by_name(member.key);
    if (field == nullptr || theirs == nullptr || field->kind != theirs->kind || field->shape != theirs->shape) continue;
    UCCP_TRY(const std::string bytes, call::json_to_field(*field, simdjson::minify(member.value)));
    out += bytes;
  }
  return out;
}

Result<std::string> only(const Wanted& wanted, const std::string& wire, const std::vector<std::string>& fields) {
  UCCP_TRY(const FieldTree tree, FieldTree::compile(*wanted.plan, fields));
  UCCP_TRY(const std::string projected, call::project(*wanted.plan, wire, tree));
  return call::canonical(*wanted.plan, projected);
}

Result<bool> is_as_wanted(const Wanted& wanted, const std::string& current) {
  UCCP_TRY(const std::string seen, only(wanted, current, wanted.fields));
  UCCP_TRY(const std::string asked, call::canonical(*wanted.plan, wanted.wire));
  return seen == asked;
}

Result<std::optional<Found>> found(const Wanted& wanted, const std::string& resource) {
  Found one;
  UCCP_TRY(one.wire, as_declared(wanted, resource));
  one.id = resource_id(*wanted.kind->resource, resource);
  one.etag = text_of(*wanted.kind->resource, "etag", resource);
  return std::optional<Found>(std::move(one));
}

Result<std::optional<Found>> find_by_content(Session& session, const Wanted& wanted) {
  const Command* list = wanted.kind->list;
  if (list == nullptr || !list->method->paging) return std::optional<Found>();
  const call::Method& method = *list->method;
  UCCP_TRY(const FieldPath path, FieldPath::compile(*method.response, method.items->name));
  std::string request;
  const std::string own = text_of(*wanted.plan, kNameSpace, wanted.wire);
  if (!own.empty() && !method.name_space.empty()) call::set_string(method.name_space, request, own);
  std::optional<Found> match;
  Status failed;
  const auto on_page = [&](const std::string& response) {
    for (const std::string_view item : call::get_items(path, response)) {
      if (match || !failed.is_ok()) return;
      const Result<bool> same = is_as_wanted(wanted, std::string(item));
      if (!same) failed = same.error();
      if (same && *same) match = found(wanted, std::string(item)).value_or(std::nullopt);
    }
  };
  UCCP_RETURN_IF_ERROR(session.caller.pages(method, {session.caller.prepared(method, request), 0, false}, on_page));
  UCCP_RETURN_IF_ERROR(failed);
  return match;
}

std::string top_of(const std::string& path) { return path.substr(0, path.find('.')); }

// PATCH: the fields at the top that differ, whole, with what names the resource.
Result<std::string> patch_request(const Wanted& wanted, const call::Method& method, const std::string& whole) {
  std::vector<std::string> kept = {wanted.kind->key->name};
  if (wanted.plan->by_name(kNameSpace) != nullptr) kept.emplace_back(kNameSpace);
  std::vector<std::string> mask;
  for (const std::string& field : wanted.fields) {
    const std::string top = top_of(field);
    if (top == kept.front() || top == kNameSpace || std::ranges::find(mask, top) != mask.end()) continue;
    mask.push_back(top);
  }
  kept.insert(kept.end(), mask.begin(), mask.end());
  UCCP_TRY(const std::string body, only(wanted, whole, kept));
  std::string request;
  call::put_bytes(request, resource_field(method)->number, body);
  const FieldPlan* field = method.request->by_name("update_mask");
  if (field == nullptr) return request;
  const size_t mark = call::begin_bytes(request, field->number);
  for (const std::string& path : mask) call::put_bytes(request, 1, path);
  call::end_bytes(request, mark);
  return request;
}

Result<Wanted> wanted_of(const Kind& kind, const YamlSection& section, const std::string& file) {
  Wanted wanted{.kind = &kind,
                .plan = &plan_of(kind),
                .wire = {},
                .fields = {},
                .name = {},
                .where = (file == "-" ? "standard input" : file) + " line " + std::to_string(section.line)};
  Result<std::string> wire = call::json_to_wire(*wanted.plan, section.json, {.path_prefix = kind.noun});
  if (!wire) return std::unexpected(located(wanted.where, wire.error()));
  wanted.wire = std::move(*wire);
  simdjson::dom::parser parser;
  element root;
  if (parser.parse(simdjson::padded_string(section.json)).get(root) == simdjson::SUCCESS) {
    written_fields(root, *wanted.plan, "", wanted.fields);
  }
  if (kind.key != nullptr) wanted.name = text_of(*wanted.plan, kind.key->name, wanted.wire);
  if (kind.key != nullptr && wanted.name.empty() && kind.list == nullptr) {
    return fail(Code::kInvalid, "MANIFEST_INVALID",
                wanted.where + ": the " + kind.noun + " has no " + kind.key->json_name);
  }
  return wanted;
}

}  // namespace

std::string Wanted::label() const { return name.empty() ? kind->noun : kind->noun + "/" + printable(name); }

Result<std::vector<Wanted>> read_manifests(Session& session, const Kinds& kinds,
                                           const std::vector<std::string>& files) {
  std::vector<Wanted> all;
  for (const std::string& file : files) {
    UCCP_TRY(const std::string text, session.io.read_file(file));
    const auto plan = [&](const std::string& key) -> Result<const MessagePlan*> {
      UCCP_TRY(const Kind* kind, kinds.find(key));
      if (kind->is_declarative()) return &plan_of(*kind);
      std::vector<std::string> known;
      for (const Kind& one : kinds.all()) {
        if (one.is_declarative()) known.push_back(one.noun);
      }
      return fail(Code::kInvalid, "MANIFEST_INVALID",
                  "a " + kind->noun + " cannot be declared; these can: " + join(known, ", "));
    };
    UCCP_TRY(const std::vector<YamlSection> sections, yaml_sections(text, file == "-" ? "standard input" : file, plan));
    for (const YamlSection& section : sections) {
      UCCP_TRY(const Kind* kind, kinds.find(section.key));
      UCCP_TRY(Wanted wanted, wanted_of(*kind, section, file));
      all.push_back(std::move(wanted));
    }
  }
  if (all.empty()) return fail(Code::kInvalid, "MANIFEST_INVALID", join(files, ", ") + ": no resources");
  return all;
}

Result<std::string> named_request(Session& session, const Wanted& wanted, const call::Method& method,
                                  const std::string& name) {
  Request request(method, session.io);
  UCCP_RETURN_IF_ERROR(request.set(method.cli->args.front(), name));
  UCCP_TRY(std::string wire, request.wire());
  const std::string own = text_of(*wanted.plan, kNameSpace, wanted.wire);
  if (!own.empty() && !method.name_space.empty()) call::set_string(method.name_space, wire, own);
  return session.caller.prepared(method, std::move(wire));
}

Result<std::optional<Found>> find_current(Session& session, const Wanted& wanted) {
  if (wanted.name.empty()) return find_by_content(session, wanted);
  const call::Method& method = *wanted.kind->get->method;
  UCCP_TRY(const std::string request, named_request(session, wanted, method, wanted.name));
  Result<std::string> response = session.caller.unary(method, request);
  if (response) return found(wanted, *response);
  if (response.error().code() == Code::kNotFound) return std::optional<Found>();
  return std::unexpected(std::move(response.error()));
}

Result<std::string> settable(const Wanted& wanted, const std::string& current) {
  std::vector<std::string> fields;
  settable_fields(*wanted.plan, "", 0, fields);
  return only(wanted, current, fields);
}

Result<std::string> merged(const Wanted& wanted, const std::string& current) {
  std::vector<std::string> rest;
  settable_fields(*wanted.plan, "", 0, rest);
  std::erase_if(rest, [&](const std::string& path) {
    return std::ranges::any_of(wanted.fields, [&](const std::string& field) {
      return path == field || path.starts_with(field + ".") || field.starts_with(path + ".");
    });
  });
  UCCP_TRY(std::string whole, only(wanted, current, rest));
  whole += wanted.wire;
  return call::canonical(*wanted.plan, whole);
}

Result<std::string> manifest_of(const Kind& kind, const std::vector<std::string>& resources) {
  if (!kind.is_declarative()) {
    return std::unexpected(
        usage_error("-o manifest is for what `apply` can make, and a " + kind.noun + " is not declared"));
  }
  const Wanted any{.kind = &kind, .plan = &plan_of(kind), .wire = {}, .fields = {}, .name = {}, .where = {}};
  std::vector<std::string> items;
  for (const std::string& resource : resources) {
    UCCP_TRY(const std::string declared, as_declared(any, resource));
    UCCP_TRY(const std::string wire, settable(any, declared));
    UCCP_TRY(std::string json, call::wire_to_json(*any.plan, wire, {.emit = call::Emit::kSet}));
    items.push_back(std::move(json));
  }
  const std::string value = items.size() == 1 ? items.front() : "[" + join(items, ",") + "]";
  return json_to_yaml("{\"" + kind.noun + "\":" + value + "}");
}

Result<Step> step_to(Session& session, const Wanted& wanted, const Found* current) {
  const Kind& kind = *wanted.kind;
  Step step;
  step.outcome = current == nullptr ? "created" : "updated";
  UCCP_TRY(const std::string whole, merged(wanted, current == nullptr ? std::string() : current->wire));
  step.command = current == nullptr ? (kind.create != nullptr ? kind.create : kind.put)
                                    : (kind.patch != nullptr ? kind.patch : kind.put);
  if (step.command == nullptr) {
    return fail(Code::kFailedPrecondition, "NOT_CHANGEABLE",
                wanted.label() + " is there and differs, and a " + kind.noun +
                    " cannot be changed: delete it, then apply again");
  }
  const call::Method& method = *step.command->method;
  if (step.command == kind.patch) {
    UCCP_TRY(step.request, patch_request(wanted, method, whole));
  } else if (const FieldPlan* field = resource_field(method)) {
    call::put_bytes(step.request, field->number, whole);
  } else {
    step.request = whole;
  }
  if (current != nullptr && !current->etag.empty() && !method.if_match.empty()) {
    call::set_string(method.if_match, step.request, current->etag);
  }
  step.request = session.caller.prepared(method, std::move(step.request));
  return step;
}

}  // namespace uccp::cli
