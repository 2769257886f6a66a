#include "call/openapi.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "call/openapi_parts.h"
#include "call/openapi_schema.h"

namespace uccp::call {
namespace {

constexpr int kQueryDepthMax = 3;

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return out;
}

bool has_word(std::string_view text, std::string_view word) {
  const auto is_part = [](char c) { return (c >= 'A' && c <= 'Z') || c == '_'; };
  for (size_t at = text.find(word); at != std::string_view::npos; at = text.find(word, at + 1)) {
    const size_t end = at + word.size();
    if ((at == 0 || !is_part(text[at - 1])) && (end == text.size() || !is_part(text[end]))) return true;
  }
  return false;
}

// A variable of a path: "{service.id}" and "{key=**}" of the contract are "{id}" and "{key}" here, because paths that
// differ in the names of variables only are one path.
struct PathVariable {
  std::string name;
  FieldPath field;
};

struct Path {
  std::string text;
  std::vector<PathVariable> variables;
};

Path path_of(const RestBinding& binding) {
  Path path;
  std::string_view rest = binding.path;
  while (!rest.empty()) {
    const size_t open = rest.find('{');
    path.text.append(rest.substr(0, open));
    if (open == std::string_view::npos) break;
    const size_t close = rest.find('}', open);
    std::string_view name = rest.substr(open + 1, close - open - 1);
    name = name.substr(0, name.find('='));
    auto field = FieldPath::compile(*binding.method->request, name);
    PathVariable variable{field->leaf().json_name, std::move(*field)};
    path.text.append("{").append(variable.name).append("}");
    path.variables.push_back(std::move(variable));
    rest.remove_prefix(close + 1);
  }
  return path;
}

class Document {
 public:
  Document(const Contract& contract, const ContractDocs& docs, const OpenApiOptions& options)
      : contract_(contract), docs_(docs), options_(options), schemas_(docs, options.level) {}

  std::string write();

 private:
  struct Operation {
    std::string path;
    std::string verb;
    std::string json;
  };

  std::string comment_of(const Method& method) const {
    return std::string(docs_.comment(method.service + "." + method.name));
  }
  void info();
  void tags();
  std::vector<Operation> operations();
  std::string operation(const RestBinding& binding, const Path& path, int number);
  void parameters(JsonWriter& json, const RestBinding& binding, const Path& path);
  void query_fields(JsonWriter& json, const MessagePlan& plan, const std::string& prefix,
                    const std::set<const FieldPlan*>& known, int depth);
  void query_field(JsonWriter& json, const MessagePlan& plan, const FieldPlan& field, const std::string& name);
  void body(JsonWriter& json, const RestBinding& binding, const Path& path);
  void success(JsonWriter& json, const RestBinding& binding);
  void success_headers(JsonWriter& json, const RestBinding& binding, int status);
  std::set<int> errors(const RestBinding& binding, const Path& path) const;

  const Contract& contract_;
  const ContractDocs& docs_;
  const OpenApiOptions& options_;
  SchemaWriter schemas_;
  JsonWriter json_;
};

void Document::info() {
  json_.key("info").begin_object().key("title").value("UCCP").key("version").value(options_.version);
  json_.key("description")
      .value(
          "Unified coordination and compute platform.\n\nErrors are `application/problem+json`; their `reason` is "
          "stable. "
          "Lists have `pageSize`, `pageToken`, `filter`, `orderBy` and `fields`. Paths marked `x-uccp-unbuilt` are "
          "part of the "
          "contract and answer 501 until they are built.");
  json_.end_object();
  json_.key("servers").begin_array().begin_object().key("url").value("/").end_object().end_array();
  json_.key("security").begin_array();
  json_.begin_object().key("bearer").begin_array().end_array().end_object();
  json_.begin_object().key("clientCertificate").begin_array().end_array().end_object();
  json_.end_array();
}

void Document::tags() {
  json_.key("tags").begin_array();
  std::set<std::string> seen;
  for (const Method& method : contract_.methods()) {
    if (method.bindings.front().rpc_path || !seen.insert(method.service).second) continue;
    json_.begin_object().key("name").value(method.service.substr(method.service.rfind('.') + 1));
    json_.key("description").value(docs_.comment(method.service)).end_object();
  }
  json_.begin_object()
      .key("name")
      .value("Batch")
      .key("description")
      .value("Several calls in one request.")
      .end_object();
  json_.begin_object()
      .key("name")
      .value("Node")
      .key("description")
      .value("Health of this node, and this document.")
      .end_object();
  json_.end_array();
}

std::string Document::write() {
  json_.begin_object().key("openapi").value(options_.level == OpenApiLevel::k31 ? "3.1.0" : "3.0.3");
  info();
  tags();
  const std::vector<Operation> all = operations();
  json_.key("paths").begin_object();
  std::set<std::string> written;
  for (const Operation& first : all) {
    if (!written.insert(first.path).second) continue;
    json_.key(first.path).begin_object();
    for (const Operation& one : all) {
      if (one.path == first.path) json_.key(one.verb).raw(one.json);
    }
    json_.end_object();
  }
  put_own_paths(json_);
  json_.end_object().key("components").begin_object().key("schemas").begin_object();
  schemas_.components(json_);
  put_problem_schema(json_);
  json_.end_object();
  put_shared_components(json_, options_.level);
  json_.end_object().end_object();
  return json_.take();
}

std::vector<Document::Operation> Document::operations() {
  std::vector<Operation> all;
  for (const Method& method : contract_.methods()) {
    int number = 0;
    for (const RestBinding& binding : method.bindings) {
      if (binding.rpc_path) continue;
      const Path path = path_of(binding);
      all.push_back({path.text, lower(binding.verb), operation(binding, path, ++number)});
    }
  }
  return all;
}

std::string Document::operation(const RestBinding& binding, const Path& path, int number) {
  const Method& method = *binding.method;
  const std::string service = method.service.substr(method.service.rfind('.') + 1);
  JsonWriter json;
  json.begin_object().key("tags").begin_array().value(service).end_array();
  json.key("operationId").value(service + "_" + method.name + (number > 1 ? "_" + std::to_string(number) : ""));
  json.key("summary").value(docs_.sentence(method.service + "." + method.name));
  json.key("description").value(comment_of(method));
  if (method.deprecated) json.key("deprecated").value(true);
  if (method.is_public) {
    json.key("security").begin_array().begin_object().end_object();
    json.begin_object().key("bearer").begin_array().end_array().end_object().end_array();
  }
  json.key("parameters").begin_array();
  parameters(json, binding, path);
  json.end_array();
  body(json, binding, path);
  json.key("responses").begin_object();
  success(json, binding);
  for (const int status : errors(binding, path)) put_error(json, status);
  json.end_object();
  json.key("x-uccp-method").value(method.full_name);
  json.key("x-uccp-permission").value(method.permission);
  if (method.cli) json.key("x-uccp-cli").value("uccp-cli " + method.cli->noun + " " + method.cli->verb);
  if (method.server_streaming || method.client_streaming) json.key("x-uccp-stream").value(true);
  if (options_.is_built && !options_.is_built(method)) json.key("x-uccp-unbuilt").value(true);
  return json.end_object().take();
}

void Document::query_field(JsonWriter& json, const MessagePlan& plan, const FieldPlan& field, const std::string& name) {
  json.begin_object().key("name").value(name).key("in").value("query");
  json.key("description").value(schemas_.description_of(plan, field));
  if (field.required) json.key("required").value(true);
  if (field.deprecated) json.key("deprecated").value(true);
  if (JsonWriter example; schemas_.example(example, field) && !field.is_repeated())
    json.key("example").raw(example.data());
  json.key("schema");
  schemas_.field(json, plan, field, SchemaWriter::Use::kParameter);
  json.end_object();
}

// All fields that text can be given for, those of messages inside by their path.
void Document::query_fields(JsonWriter& json, const MessagePlan& plan, const std::string& prefix,
                            const std::set<const FieldPlan*>& known, int depth) {
  for (const FieldPlan& field : plan.fields) {
    if (field.output_only || field.is_map() || known.contains(&field)) continue;
    const bool is_object = field.kind == Kind::kMessage && field.message->well_known == WellKnown::kNone;
    const bool is_text = field.kind != Kind::kMessage || field.message->well_known == WellKnown::kTimestamp ||
                         field.message->well_known == WellKnown::kDuration ||
                         field.message->well_known == WellKnown::kFieldMask ||
                         field.message->well_known == WellKnown::kWrapper;
    if (is_object && !field.is_repeated() && depth < kQueryDepthMax) {
      query_fields(json, *field.message, prefix + field.json_name + ".", known, depth + 1);
    } else if (is_text) {
      query_field(json, plan, field, prefix + field.json_name);
    }
  }
}

void Document::parameters(JsonWriter& json, const RestBinding& binding, const Path& path) {
  const Method& method = *binding.method;
  std::set<const FieldPlan*> known;
  for (const PathVariable& variable : path.variables) {
    const auto steps = variable.field.steps();
    const MessagePlan& owner = variable.field.owner(steps.size() - 1);
    known.insert(&variable.field.leaf());
    json.begin_object().key("name").value(variable.name).key("in").value("path").key("required").value(true);
    json.key("description").value(schemas_.description_of(owner, variable.field.leaf()));
    if (JsonWriter example; schemas_.example(example, variable.field.leaf())) json.key("example").raw(example.data());
    FieldPlan filled = variable.field.leaf();
    filled.required = true;
    json.key("schema");
    schemas_.field(json, owner, filled, SchemaWriter::Use::kParameter);
    json.end_object();
  }
  bool has_namespace = false;
  if (binding.body != RestBinding::Body::kAll) {
    if (binding.body_field != nullptr) known.insert(binding.body_field);
    query_fields(json, *method.request, {}, known, 0);
    has_namespace = method.request->by_name("namespace") != nullptr;
  }
  if (!has_namespace && !method.name_space.empty() && !known.contains(&method.name_space.leaf())) {
    put_parameter_reference(json, "Namespace");
  }
  if (!method.mutating) put_parameter_reference(json, "Consistency");
  const bool unary = !method.client_streaming && !method.server_streaming;
  if (method.mutating && unary && !method.is_public) put_parameter_reference(json, "DryRun");
  if (!method.server_streaming && method.rest_success != 204) put_parameter_reference(json, "Pretty");
  if (!method.request_id.empty()) put_parameter_reference(json, "IdempotencyKey");
  if (!method.if_match.empty()) put_parameter_reference(json, "IfMatch");
  if (!method.etag.empty() && binding.verb == "GET") put_parameter_reference(json, "IfNoneMatch");
  if (!method.resume.empty()) put_parameter_reference(json, "LastEventId");
  put_parameter_reference(json, "RequestId");
}

void Document::body(JsonWriter& json, const RestBinding& binding, const Path& path) {
  if (binding.body == RestBinding::Body::kNone) return;
  const Method& method = *binding.method;
  // The fields that the path holds need not be in the body.
  std::set<const FieldPlan*> in_path;
  for (const PathVariable& variable : path.variables) in_path.insert(&variable.field.leaf());
  const bool whole = binding.body == RestBinding::Body::kAll;
  const MessagePlan* plan = whole ? method.request : binding.body_field->message;
  const bool needed =
      whole ? std::ranges::any_of(plan->fields, [&](const FieldPlan& f) { return f.required && !in_path.contains(&f); })
            : binding.body_field->required;
  json.key("requestBody").begin_object().key("required").value(needed || method.client_streaming);
  json.key("content").begin_object();
  if (method.client_streaming) {
    json.key("application/x-ndjson").begin_object().key("schema").begin_object();
    json.key("type").value("string").key("description").value("One message a line.").end_object();
    json.key("x-uccp-item");
    schemas_.message(json, *plan);
    json.end_object();
  } else {
    json.key("application/json").begin_object().key("schema");
    if (plan == nullptr) schemas_.field(json, *method.request, *binding.body_field, SchemaWriter::Use::kProperty);
    else if (whole) schemas_.message_without(json, *plan, in_path);
    else schemas_.message(json, *plan);
    json.end_object();
  }
  json.end_object().end_object();
}

void Document::success_headers(JsonWriter& json, const RestBinding& binding, int status) {
  const Method& method = *binding.method;
  json.key("headers").begin_object();
  put_header_reference(json, "X-Request-Id");
  if (status == 201 && !method.location.empty()) put_header_reference(json, "Location");
  if (!method.etag.empty()) put_header_reference(json, "ETag");
  if (method.mutating) put_header_reference(json, "Uccp-Session");
  if (method.paging && binding.verb == "GET") put_header_reference(json, "Link");
  if (!method.is_public) put_header_reference(json, "RateLimit-Limit");
  json.end_object();
}

void Document::success(JsonWriter& json, const RestBinding& binding) {
  const Method& method = *binding.method;
  json.key(std::to_string(method.rest_success)).begin_object().key("description");
  json.value(method.rest_success == 201   ? "Created."
             : method.rest_success == 204 ? "Done; there is no body."
             : method.server_streaming    ? "The items, as they come."
                                          : "Success.");
  success_headers(json, binding, method.rest_success);
  if (method.rest_success != 204) {
    json.key("content").begin_object();
    if (method.server_streaming) {
      // A field `bytes data` of its own: the content itself is the default form.
      const FieldPlan* data = method.response->by_name("data");
      for (const auto& [type, what] :
           {std::pair{"application/x-ndjson", "One item a line."},
            std::pair{"text/event-stream", "Server-sent events: `id` is the cursor, `data` the item."}}) {
        json.key(type).begin_object().key("schema").begin_object();
        json.key("type").value("string").key("description").value(what).end_object();
        json.key("x-uccp-item");
        schemas_.message(json, *method.response);
        json.end_object();
      }
      if (data != nullptr && data->kind == Kind::kBytes && data->oneof < 0) {
        json.key("application/octet-stream").begin_object().key("schema").begin_object();
        if (options_.level == OpenApiLevel::k30) json.key("type").value("string").key("format").value("binary");
        json.end_object().end_object();
      }
    } else {
      json.key("application/json").begin_object().key("schema");
      const bool part = binding.response_field != nullptr && binding.response_field->is_message();
      schemas_.message(json, part ? *binding.response_field->message : *method.response);
      json.end_object();
    }
    json.end_object();
  }
  json.end_object();
  if (!method.etag.empty() && binding.verb == "GET") {
    json.key("304").begin_object().key("description").value("Unchanged.");
    success_headers(json, binding, 304);
    json.end_object();
  }
}

// What the door, the pipeline and the storage may answer, and what the comment of the method names under "Failure:".
std::set<int> Document::errors(const RestBinding& binding, const Path& path) const {
  const Method& method = *binding.method;
  std::set<int> statuses = {400, 401, 429, 431, 500, 503, 504};
  if (!method.is_public) statuses.insert(403);
  if (!path.variables.empty()) statuses.insert(404);
  if (binding.body != RestBinding::Body::kNone || binding.verb == "DELETE") statuses.insert({413, 415});
  if (method.mutating && !method.request_id.empty()) statuses.insert(409);
  if (!method.if_match.empty()) statuses.insert(412);
  const std::string comment = comment_of(method);
  const size_t failure = comment.find("Failure:");
  const std::string_view text =
      failure == std::string::npos ? std::string_view() : std::string_view(comment).substr(failure);
  for (const auto& [word, status] :
       {std::pair{"NOT_FOUND", 404}, {"ALREADY_EXISTS", 409}, {"ABORTED", 409}, {"FAILED_PRECONDITION", 412}}) {
    if (has_word(text, word)) statuses.insert(status);
  }
  if (options_.is_built && !options_.is_built(method)) statuses.insert(501);
  return statuses;
}

}  // namespace

std::string openapi_json(const Contract& contract, const ContractDocs& docs, const OpenApiOptions& options) {
  return Document(contract, docs, options).write();
}

}  // namespace uccp::call
