#include "cli/kinds.h"

#include <algorithm>

#include "cli/flag.h"
#include "cli/text.h"

namespace uccp::cli {
namespace {

using call::RestBinding;

const RestBinding* main_binding(const call::Method& method) {
  if (method.bindings.empty() || method.bindings.front().rpc_path) return nullptr;
  return &method.bindings.front();
}

// "/api/v1/topics/{topic.name}" -> "/api/v1/topics/{}"; a custom verb and what follows stay.
std::string shape(std::string_view path) {
  std::string out;
  for (size_t at = 0; at < path.size(); ++at) {
    out.push_back(path[at]);
    if (path[at] != '{') continue;
    at = std::min(path.find('}', at), path.size() - 1);
    out.push_back('}');
  }
  return out;
}

bool answers_whole(const call::Method& method) { return method.items == nullptr && !method.server_streaming; }

// Takes one argument, which `get` takes too, and needs nothing else.
bool is_facet(const call::Method& method, const Command& get) {
  if (method.mutating || !answers_whole(method) || &method == get.method || !method.cli) return false;
  const auto& args = method.cli->args;
  const auto& of_get = get.method->cli->args;
  if (args.size() != 1 || of_get.size() != 1 || args.front().leaf().name != of_get.front().leaf().name) return false;
  if (method.cli->long_running) return false;
  return std::ranges::none_of(method.request->fields, [&](const call::FieldPlan& field) {
    return field.required && field.name != args.front().leaf().name;
  });
}

void sort_in(Kind& kind, const Command& command, const std::string& item_path) {
  const call::Method& method = *command.method;
  const RestBinding* binding = main_binding(method);
  if (binding == nullptr) return;
  const bool whole = binding->body == RestBinding::Body::kField && binding->body_field->is_message() &&
                     method.response == binding->body_field->message;
  const bool on_item = shape(binding->path) == item_path;
  if (binding->verb == "POST" && whole) {
    kind.create = &command;
  } else if (binding->verb == "PATCH" && whole) {
    kind.patch = &command;
  } else if (binding->verb == "PUT" && on_item && (whole || binding->body == RestBinding::Body::kAll)) {
    kind.put = &command;
  } else if (binding->verb == "DELETE" && on_item) {
    kind.remove = &command;
  } else if (method.server_streaming && command.verb == "watch") {
    kind.watch = &command;
  } else if (method.server_streaming && command.verb == "logs") {
    kind.logs = &command;
  }
}

// A POST that may replace what is there (it takes the etag of it) is a PUT by another name.
void settle(Kind& kind) {
  if (kind.create != nullptr && kind.patch == nullptr && kind.put == nullptr &&
      !kind.create->method->if_match.empty()) {
    kind.put = kind.create;
    kind.create = nullptr;
  }
  // What goes on by itself after it was removed was a process, not a state.
  const bool goes_on = kind.remove != nullptr && kind.remove->method->response == kind.resource;
  if (goes_on || kind.resource == nullptr || kind.remove == nullptr) kind.create = kind.put = kind.patch = nullptr;
  if (kind.get == nullptr || kind.resource == nullptr) return;
  const std::string& name =
      kind.get->method->cli->args.empty() ? std::string() : kind.get->method->cli->args.front().leaf().name;
  const call::FieldPlan* key = kind.resource->by_name(name);
  if (key != nullptr && !key->output_only) kind.key = key;
}

Kind kind_of(const Catalog& catalog, const std::string& noun) {
  Kind kind{.noun = noun};
  std::string item_path;
  for (const Command* command : catalog.commands(noun)) {
    const call::Method& method = *command->method;
    const RestBinding* binding = main_binding(method);
    if (binding == nullptr || binding->verb != "GET") continue;
    if (command->verb == "get" && answers_whole(method)) {
      kind.get = command;
      kind.resource = method.response;
      item_path = shape(binding->path);
    } else if (command->verb == "list" && method.items != nullptr) {
      kind.list = command;
    }
  }
  if (kind.resource == nullptr && kind.list != nullptr) kind.resource = kind.list->method->items->message;
  if (item_path.empty() && kind.list != nullptr) item_path = main_binding(*kind.list->method)->path + "/{}";
  for (const Command* command : catalog.commands(noun)) {
    sort_in(kind, *command, item_path);
    if (kind.get != nullptr && is_facet(*command->method, *kind.get)) kind.facets.push_back(command);
  }
  settle(kind);
  return kind;
}

}  // namespace

const call::FieldPlan* resource_field(const call::Method& method) {
  const RestBinding* binding = main_binding(method);
  return binding == nullptr ? nullptr : binding->body_field;
}

Kinds::Kinds(const Catalog& catalog) : catalog_(catalog) {
  for (const std::string& noun : catalog.nouns()) {
    Kind kind = kind_of(catalog, noun);
    if (kind.get != nullptr || kind.list != nullptr) kinds_.push_back(std::move(kind));
  }
}

Result<const Kind*> Kinds::find(std::string_view word) const {
  const Result<std::string> noun = catalog_.noun(word);
  std::vector<std::string> known;
  for (const Kind& kind : kinds_) {
    if (noun && kind.noun == *noun) return &kind;
    known.push_back(kind.noun);
  }
  if (!noun) {
    const std::string near = nearest(word, known);
    return std::unexpected(
        usage_error("there is no kind \"" + printable(word) + "\"" +
                    (near.empty() ? "; kinds: " + join(known, ", ") : "; did you mean \"" + near + "\"?")));
  }
  return std::unexpected(usage_error(*noun + " has commands but no resources to get; `uccp-cli " + *noun +
                                     " --help` lists them. Kinds: " + join(known, ", ")));
}

}  // namespace uccp::cli
