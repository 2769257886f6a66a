#include "call/contract.h"

#include <google/api/annotations.pb.h>
#include <google/protobuf/descriptor.h>

#include <algorithm>
#include <set>

#include "base/check.h"
#include "call/contract_link.h"
#include "uccp/v1/options.pb.h"

namespace uccp::call {
namespace {

namespace pb = google::protobuf;

[[noreturn]] void broken(const Method& method, std::string_view what) {
  const std::string why = "contract: " + method.full_name + ": " + std::string(what);
  check_failed("contract is consistent", __FILE__, __LINE__, why);
}

FieldPath path_in(const Method& method, const MessagePlan& plan, std::string_view path) {
  if (path.empty()) return {};
  auto compiled = FieldPath::compile(plan, path);
  if (!compiled) broken(method, compiled.error().message());
  return std::move(*compiled);
}

// The path if there is such a field, else an empty one.
FieldPath maybe_in(const MessagePlan& plan, std::string_view path) {
  return plan.by_name(path) == nullptr ? FieldPath() : std::move(*FieldPath::compile(plan, path));
}

// A column of a table as the path in an item's JSON: "create_time" -> "createTime", maps keep their keys.
std::string column_path(const Method& method, const MessagePlan* item, std::string_view column) {
  std::string path;
  for (std::string_view rest = column; !rest.empty();) {
    const size_t dot = rest.find('.');
    const FieldPlan* field = item == nullptr ? nullptr : item->by_name(rest.substr(0, dot));
    if (item != nullptr && field == nullptr) broken(method, "no column " + std::string(column));
    if (!path.empty()) path.push_back('.');
    path.append(field == nullptr ? rest.substr(0, dot) : std::string_view(field->json_name));
    item = field != nullptr && field->is_message() && field->message->well_known == WellKnown::kNone ? field->message
                                                                                                     : nullptr;
    rest.remove_prefix(dot == std::string_view::npos ? rest.size() : dot + 1);
  }
  return path;
}

void add_bindings(const google::api::HttpRule& rule, Method& method) {
  RestBinding binding;
  switch (rule.pattern_case()) {
    case google::api::HttpRule::kGet: binding.verb = "GET", binding.path = rule.get(); break;
    case google::api::HttpRule::kPut: binding.verb = "PUT", binding.path = rule.put(); break;
    case google::api::HttpRule::kPost: binding.verb = "POST", binding.path = rule.post(); break;
    case google::api::HttpRule::kDelete: binding.verb = "DELETE", binding.path = rule.delete_(); break;
    case google::api::HttpRule::kPatch: binding.verb = "PATCH", binding.path = rule.patch(); break;
    case google::api::HttpRule::kCustom:
      binding.verb = rule.custom().kind(), binding.path = rule.custom().path();
      break;
    default: broken(method, "google.api.http without a pattern");
  }
  if (rule.body() == "*") {
    binding.body = RestBinding::Body::kAll;
  } else if (!rule.body().empty()) {
    binding.body = RestBinding::Body::kField;
    binding.body_field = method.request->by_name(rule.body());
    if (binding.body_field == nullptr) broken(method, "no body field " + rule.body());
  }
  if (!rule.response_body().empty()) {
    binding.response_field = method.response->by_name(rule.response_body());
    if (binding.response_field == nullptr) broken(method, "no response field " + rule.response_body());
  }
  method.bindings.push_back(std::move(binding));
  for (const google::api::HttpRule& more : rule.additional_bindings()) add_bindings(more, method);
}

void compile_rest(const pb::MethodDescriptor& descriptor, const uccp::v1::Rest& rest, Method& method) {
  if (descriptor.options().HasExtension(google::api::http)) {
    add_bindings(descriptor.options().GetExtension(google::api::http), method);
  }
  RestBinding generic;
  generic.verb = "POST";
  generic.path = method.grpc_path;
  generic.body = RestBinding::Body::kAll;
  generic.rpc_path = true;
  method.bindings.push_back(std::move(generic));

  if (rest.success() != 0) method.rest_success = rest.success();
  method.location = rest.location();
  method.etag = path_in(method, *method.response, rest.etag_field());
  method.if_match = path_in(method, *method.request, rest.if_match_field());
  method.cache_max_age_s = static_cast<uint32_t>(std::max(0, rest.cache_max_age_s()));
  for (std::string_view left = method.location; left.find('{') != std::string_view::npos;) {
    const size_t open = left.find('{'), close = left.find('}', open);
    if (close == std::string_view::npos) broken(method, "location without }");
    path_in(method, *method.response, left.substr(open + 1, close - open - 1));
    left.remove_prefix(close + 1);
  }
}

void compile_paging(const uccp::v1::MethodPolicy& policy, Method& method) {
  std::string items = policy.cli().items_field();
  if (policy.has_paging()) {
    const uccp::v1::Paging& from = policy.paging();
    PagingRule rule;
    if (from.page_size_default() > 0) rule.page_size_default = static_cast<uint32_t>(from.page_size_default());
    if (from.page_size_max() > 0) rule.page_size_max = static_cast<uint32_t>(from.page_size_max());
    rule.page_size = path_in(method, *method.request, "page_size");
    rule.page_token = path_in(method, *method.request, "page_token");
    rule.order_by = maybe_in(*method.request, "order_by");
    rule.filter = maybe_in(*method.request, "filter");
    rule.fields = maybe_in(*method.request, "fields");
    rule.next_page_token = path_in(method, *method.response, "next_page_token");
    method.paging = std::move(rule);
    items = from.items_field();
    if (items.empty()) broken(method, "paging without items_field");
  }
  if (items.empty()) return;
  const FieldPath path = path_in(method, *method.response, items);
  if (path.steps().size() != 1 || path.leaf().shape == Shape::kSingular) broken(method, "items_field must be repeated");
  method.items = &path.leaf();
}

void compile_cli(const uccp::v1::Cli& from, Method& method) {
  CliCommand cli;
  cli.noun = from.noun();
  cli.verb = from.verb();
  cli.long_running = from.long_running();
  if (cli.noun.empty() || cli.verb.empty()) broken(method, "cli without noun or verb");
  for (const std::string& arg : from.args()) cli.args.push_back(path_in(method, *method.request, arg));
  const MessagePlan* item = method.items == nullptr  ? method.response
                            : method.items->is_map() ? method.items->map_value->message
                                                     : method.items->message;
  for (const std::string& column : from.columns()) cli.columns.push_back(column_path(method, item, column));
  for (const std::string& column : from.wide_columns()) cli.wide_columns.push_back(column_path(method, item, column));
  method.cli = std::move(cli);
}

// `namespace` of the request, else of the first message in it that has one.
FieldPath namespace_of(const MessagePlan& request) {
  if (request.by_name("namespace") != nullptr) return maybe_in(request, "namespace");
  for (const FieldPlan& field : request.fields) {
    if (!field.is_message() || field.message->well_known != WellKnown::kNone) continue;
    const FieldPlan* inner = field.message->by_name("namespace");
    if (inner != nullptr && inner->kind == Kind::kString)
      return std::move(*FieldPath::compile(request, field.name + ".namespace"));
  }
  return {};
}

bool has_redacted(const MessagePlan& plan, std::set<const MessagePlan*>& seen) {
  if (!seen.insert(&plan).second) return false;
  return std::ranges::any_of(plan.fields, [&](const FieldPlan& field) {
    const FieldPlan& inner = field.is_map() ? *field.map_value : field;
    return field.redact || inner.redact || (inner.is_message() && has_redacted(*inner.message, seen));
  });
}

void compile_policy(const uccp::v1::MethodPolicy& policy, Method& method) {
  if (policy.permission().empty()) broken(method, "no permission");
  method.permission = policy.permission();
  method.is_public = method.permission == "public";
  method.resource = path_in(method, *method.request, policy.resource());
  method.name_space = namespace_of(*method.request);
  switch (policy.audit()) {
    case uccp::v1::AUDIT_NONE: method.audit = AuditLevel::kNone; break;
    case uccp::v1::AUDIT_METADATA: method.audit = AuditLevel::kMetadata; break;
    case uccp::v1::AUDIT_REQUEST: method.audit = AuditLevel::kRequest; break;
    default: broken(method, "no audit level");
  }
  const std::vector<std::string> redact(policy.redact().begin(), policy.redact().end());
  auto tree = FieldTree::compile(*method.request, redact);
  if (!tree) broken(method, tree.error().message());
  method.redact = std::move(*tree);
  std::set<const MessagePlan*> seen;
  method.has_secrets = !redact.empty() || has_redacted(*method.request, seen);

  method.mutating = policy.has_idempotency();
  method.naturally_idempotent = policy.idempotency().natural();
  method.request_id = policy.idempotency().key_field().empty()
                          ? maybe_in(*method.request, "request_id")
                          : path_in(method, *method.request, policy.idempotency().key_field());
  if (!policy.quota().class_().empty()) method.quota_class = policy.quota().class_();
  if (policy.quota().cost() > 0) method.quota_cost = policy.quota().cost();
  if (policy.read_level() == uccp::v1::READ_LEVEL_BOUNDED) method.read_level = DefaultRead::kBounded;
  if (policy.read_bound_ms() > 0) method.read_bound_ms = policy.read_bound_ms();
  if (policy.lane() == uccp::v1::LANE_ADMIN) method.lane = Lane::kAdmin;
  if (policy.lane() == uccp::v1::LANE_AGENT) method.lane = Lane::kAgent;
  method.resume = path_in(method, *method.request, policy.resume_field());
  if (method.server_streaming) {
    method.cursor = maybe_in(*method.response, "cursor");
    method.end = maybe_in(*method.response, "end");
  }
  compile_paging(policy, method);
  if (policy.has_cli()) compile_cli(policy.cli(), method);
}

Method compile_method(const pb::MethodDescriptor& descriptor, PlanSet& plans) {
  Method method;
  method.service = descriptor.service()->full_name();
  method.name = descriptor.name();
  method.full_name = method.service + "/" + method.name;
  method.grpc_path = "/" + method.full_name;
  method.client_streaming = descriptor.client_streaming();
  method.server_streaming = descriptor.server_streaming();
  method.deprecated = descriptor.options().deprecated();
  method.request = &plans.compile(*descriptor.input_type());
  method.response = &plans.compile(*descriptor.output_type());
  if (!descriptor.options().HasExtension(uccp::v1::method)) broken(method, "no (uccp.v1.method)");
  const uccp::v1::MethodPolicy& policy = descriptor.options().GetExtension(uccp::v1::method);
  compile_policy(policy, method);
  compile_rest(descriptor, policy.rest(), method);
  return method;
}

void compile_messages(const pb::Descriptor& type, PlanSet& plans) {
  if (type.options().map_entry()) return;
  plans.compile(type);
  for (int i = 0; i < type.nested_type_count(); ++i) compile_messages(*type.nested_type(i), plans);
}

}  // namespace

const Contract& Contract::get() {
  static const Contract contract;
  return contract;
}

Contract::Contract() {
  const pb::DescriptorPool& pool = *pb::DescriptorPool::generated_pool();
  for (const std::string_view name : linked_files()) {
    const pb::FileDescriptor* file = pool.FindFileByName(std::string(name));
    UCCP_CHECK(file != nullptr, "a file of the contract is not linked: " + std::string(name));
    for (int i = 0; i < file->message_type_count(); ++i) compile_messages(*file->message_type(i), plans_);
    for (int i = 0; i < file->service_count(); ++i) {
      services_.push_back(file->service(i)->full_name());
      for (int k = 0; k < file->service(i)->method_count(); ++k) {
        methods_.push_back(compile_method(*file->service(i)->method(k), plans_));
      }
    }
  }
  std::sort(services_.begin(), services_.end());
  for (size_t i = 0; i < methods_.size(); ++i) {
    Method& method = methods_[i];
    method.index = static_cast<uint16_t>(i);
    for (RestBinding& binding : method.bindings) binding.method = &method;
    by_name_.emplace(method.full_name, &method);
  }
}

const Method* Contract::find(std::string_view name) const {
  if (name.starts_with('/')) name.remove_prefix(1);
  const auto at = by_name_.find(name);
  return at == by_name_.end() ? nullptr : at->second;
}

const MessagePlan& Contract::plan(std::string_view type) const {
  const MessagePlan* plan = plans_.find(type);
  UCCP_CHECK(plan != nullptr, "the contract has no message " + std::string(type));
  return *plan;
}

}  // namespace uccp::call
