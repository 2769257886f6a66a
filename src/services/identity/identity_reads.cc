// Reading what is configured, and answering who may what.
#include <algorithm>

#include "base/bytes.h"
#include "call/contract.h"
#include "call/json_codec.h"
#include "call/policy/roles.h"
#include "call/policy/words.h"
#include "services/identity/identity_apply.h"
#include "services/identity/identity_service.h"
#include "services/message_types.h"

namespace uccp::identity {

using call::CallPtr;
using machine::GroupView;
using services::parse;
using namespace internal::v1;  // NOLINT(google-build-using-namespace): rows and kinds of this domain

namespace {

std::string method_name(std::string_view rpc) { return "uccp.v1.Identity/" + std::string(rpc); }

v1::Role shown_built_in(const call::BuiltInRole& built_in) {
  v1::Role role;
  role.set_name(std::string(built_in.name));
  for (const std::string_view grant : built_in.grants) role.add_permissions(std::string(grant));
  role.set_description(std::string(built_in.description));
  role.set_built_in(true);
  return role;
}

v1::Tenant operators_tenant(const GroupView& view) {
  auto row = kTenants.get(view, kNoScope, call::kOperatorsTenant);
  if (row) return *row;
  v1::Tenant tenant;
  tenant.set_name(std::string(call::kOperatorsTenant));
  tenant.set_display_name("operators of the cluster");
  tenant.set_status(v1::TENANT_STATUS_ACTIVE);
  return tenant;
}

// The rows of one list as pairs of key and public message, in the order of keys.
using Rows = std::vector<std::pair<std::string, std::string>>;

template <typename Table>
Rows rows_of(const GroupView& view, const machine::Scope& scope, const Table& table) {
  Rows rows;
  table.scan(view, scope, "", "", [&](std::string_view key, const auto& row) {
    if constexpr (requires { row.user(); }) rows.emplace_back(key, row.user().SerializeAsString());
    else rows.emplace_back(key, row.SerializeAsString());
    return true;
  });
  return rows;
}

Rows tenant_rows(const GroupView& view) {
  Rows rows;
  kTenants.scan(view, kNoScope, "", "", [&](std::string_view key, const v1::Tenant& row) {
    if (key != call::kOperatorsTenant && row.status() != v1::TENANT_STATUS_DELETED)
      rows.emplace_back(key, row.SerializeAsString());
    return true;
  });
  rows.emplace_back(call::kOperatorsTenant, operators_tenant(view).SerializeAsString());
  std::ranges::sort(rows);
  return rows;
}

Rows role_rows(const GroupView& view, const machine::Scope& scope) {
  Rows rows = rows_of(view, scope, kRoles);
  for (const call::BuiltInRole& role : call::built_in_roles()) {
    rows.emplace_back(role.name, shown_built_in(role).SerializeAsString());
  }
  std::ranges::sort(rows);
  return rows;
}

Rows api_key_rows(const GroupView& view, const machine::Scope& scope) {
  Rows rows;
  kApiKeysOfUser.scan(view, scope, "", "", [&](std::string_view key, std::string_view) {
    ByteReader in(key);
    (void)in.key_part();
    const std::string id(in.rest());
    if (const auto row = kApiKeys.get(view, kNoScope, id)) rows.emplace_back(id, row->key().SerializeAsString());
    return true;
  });
  std::ranges::sort(rows);
  return rows;
}

std::string tenant_in(const std::string& bytes, const call::Method& method) {
  const auto path = call::FieldPath::compile(*method.request, "tenant");
  return path ? std::string(call::get_string(*path, bytes).value_or(std::string_view())) : std::string();
}

v1::ExplainAccessResponse explanation(const call::PolicySet& set, const call::AccessQuery& query,
                                      const Status& active) {
  const std::string& who = query.principal.name;
  std::vector<call::RuleTrace> trace;
  const call::Decision decision = set.decide(query, &trace);
  v1::ExplainAccessResponse out;
  out.set_allowed(decision.allowed());
  out.set_permission(query.method->permission);
  if (!active.is_ok()) {
    out.set_allowed(false);
    out.set_reason(std::string(active.reason()));
    out.set_message(active.message());
  } else if (decision.allowed()) {
    const bool decided = !trace.empty() && trace.front().decided;
    out.set_message(
        who + " may call " + query.method->name +
        (decided ? ": " + trace.front().kind + " " + trace.front().name + ", " + trace.front().detail : ""));
  } else {
    const Status denied = set.denial(query, decision);
    out.set_reason(std::string(denied.reason()));
    out.set_message(denied.message());
  }
  for (const call::RuleTrace& rule : trace) {
    v1::AccessRule& shown = *out.add_rules();
    shown.set_kind(rule.kind);
    shown.set_name(rule.name);
    shown.set_effect(rule.effect);
    shown.set_detail(rule.detail);
    shown.set_decided(rule.decided);
  }
  return out;
}

}  // namespace

void IdentityService::add_reads(call::HandlerTable& handlers) {
  const auto add = [&]<typename Request>(Request*, std::string_view rpc, IdentityKind kind, auto find) {
    handlers.add(method_name(rpc), [this, kind, find](const CallPtr& call, const std::string& bytes) {
      const auto request = parse<Request>(bytes);
      std::string named;
      if constexpr (requires { request.tenant(); }) named = request.tenant();
      auto tenant = target_tenant(*call, named);
      if (!tenant) return call->finish(std::move(tenant.error()));
      std::string key;
      if constexpr (requires { request.name(); }) key = request.name();
      else key = request.id();
      read(call, [call, kind, find, key, scope = tenant_scope(*tenant)](const GroupView& view) {
        const auto row = find(view, scope, key);
        if (!row) return call->finish(not_found(kind, key));
        call->reply(row->SerializeAsString());
      });
    });
  };
  const auto stored = [](const auto& table) {
    return [&table](const GroupView& view, const machine::Scope& scope, const std::string& key) {
      return table.get(view, scope, key);
    };
  };
  add(static_cast<v1::GetTenantRequest*>(nullptr), "GetTenant", IDENTITY_KIND_TENANT,
      [](const GroupView& view, const machine::Scope&, const std::string& key) -> std::optional<v1::Tenant> {
        if (key == call::kOperatorsTenant) return operators_tenant(view);
        auto row = kTenants.get(view, kNoScope, key);
        if (row && row->status() == v1::TENANT_STATUS_DELETED) return std::nullopt;
        return row;
      });
  add(static_cast<v1::GetNamespaceRequest*>(nullptr), "GetNamespace", IDENTITY_KIND_NAMESPACE, stored(kNamespaces));
  add(static_cast<v1::GetUserRequest*>(nullptr), "GetUser", IDENTITY_KIND_USER,
      [](const GroupView& view, const machine::Scope& scope, const std::string& key) -> std::optional<v1::User> {
        auto row = kUsers.get(view, scope, key);
        if (!row) return std::nullopt;
        return row->user();
      });
  add(static_cast<v1::GetRoleRequest*>(nullptr), "GetRole", IDENTITY_KIND_ROLE,
      [](const GroupView& view, const machine::Scope& scope, const std::string& key) -> std::optional<v1::Role> {
        if (const call::BuiltInRole* role = call::find_built_in_role(key)) return shown_built_in(*role);
        return kRoles.get(view, scope, key);
      });
  add(static_cast<v1::GetBindingRequest*>(nullptr), "GetBinding", IDENTITY_KIND_BINDING, stored(kBindings));
  add(static_cast<v1::GetPolicyRequest*>(nullptr), "GetPolicy", IDENTITY_KIND_POLICY, stored(kPolicies));
  handlers.add(method_name("WhoAmI"), [this](const CallPtr& call, const std::string&) { who_am_i(call); });
  handlers.add_parsed<v1::ExplainAccessRequest>(
      method_name("ExplainAccess"),
      [this](const CallPtr& call, const v1::ExplainAccessRequest& request) { explain(call, request); });
  handlers.add(method_name("GetSigningKeys"), [this](const CallPtr& call, const std::string&) { signing_keys(call); });
}

void IdentityService::add_lists(call::HandlerTable& handlers) {
  using RowsOf = std::function<Rows(const GroupView&, const machine::Scope&)>;
  const std::pair<std::string_view, RowsOf> lists[] = {
      {"ListTenants", [](const GroupView& view, const machine::Scope&) { return tenant_rows(view); }},
      {"ListNamespaces", [](const GroupView& v, const machine::Scope& s) { return rows_of(v, s, kNamespaces); }},
      {"ListUsers", [](const GroupView& v, const machine::Scope& s) { return rows_of(v, s, kUsers); }},
      {"ListRoles", role_rows},
      {"ListBindings", [](const GroupView& v, const machine::Scope& s) { return rows_of(v, s, kBindings); }},
      {"ListPolicies", [](const GroupView& v, const machine::Scope& s) { return rows_of(v, s, kPolicies); }},
      {"ListApiKeys", api_key_rows}};
  for (const auto& [rpc, rows] : lists) {
    handlers.add(method_name(rpc), [this, rows](const CallPtr& call, const std::string& bytes) {
      auto tenant = target_tenant(*call, tenant_in(bytes, *call->method));
      if (!tenant) return call->finish(std::move(tenant.error()));
      const machine::Scope scope = tenant_scope(*tenant);
      auto query =
          call::compile_list(*call->method, bytes,
                             {.signer = &env_.page_tokens, .now = env_.clock.wall(), .scope = scope, .key_order = ""});
      if (!query) return call->finish(std::move(query.error()));
      read(call, [this, call, rows, scope, query = std::move(*query)](const GroupView& view) {
        env_.work.post([call, rows, scope, query, view] {
          if (call->finished()) return;
          const Rows all = rows(view, scope);
          auto page = call::paginate(query, [&](std::string_view after, const call::VisitRow& visit) {
            for (const auto& [key, item] : all) {
              if ((after.empty() || key > after) && !visit(key, item)) return;
            }
          });
          if (!page) return call->finish(std::move(page.error()));
          call->reply(call::encode_page(*call->method, *page));
        });
      });
    });
  }
}

void IdentityService::who_am_i(const CallPtr& call) {
  const auto set = env_.directory.newest();
  const call::Principal& principal = call->principal;
  v1::WhoAmIResponse out;
  out.set_principal(principal.name);
  out.set_tenant(principal.tenant);
  out.set_kind(std::string(call::kind_name(principal.kind)));
  out.set_credential(std::string(call::credential_name(principal.credential)));
  out.mutable_roles()->Assign(principal.roles.begin(), principal.roles.end());
  out.mutable_groups()->Assign(principal.groups.begin(), principal.groups.end());
  out.mutable_namespaces()->Assign(principal.namespaces.begin(), principal.namespaces.end());
  if (principal.expires_us > 0) services::set_wall(out.mutable_expire_time(), {principal.expires_us});
  const std::string where = principal.namespaces.empty() ? "" : principal.namespaces.front();
  for (std::string& name : call::PermissionTable::get().names(set->authority(principal, where))) {
    out.add_permissions(std::move(name));
  }
  for (const call::BindingSpec* spec : set->bindings_of(principal)) {
    v1::Binding& binding = *out.add_bindings();
    binding.set_id(spec->id);
    binding.set_role(spec->role);
    binding.mutable_members()->Assign(spec->members.begin(), spec->members.end());
    binding.mutable_namespaces()->Assign(spec->namespaces.begin(), spec->namespaces.end());
    binding.mutable_resources()->Assign(spec->resources.begin(), spec->resources.end());
  }
  call->reply(out.SerializeAsString());
}

void IdentityService::explain(const CallPtr& call, const v1::ExplainAccessRequest& request) {
  auto tenant = target_tenant(*call, request.tenant());
  if (!tenant) return call->finish(std::move(tenant.error()));
  const auto set = env_.directory.newest();
  const call::Method* method = nullptr;
  std::vector<std::string> known;
  for (const call::Method& m : call::Contract::get().methods()) {
    if (m.name == request.method() || m.full_name == request.method()) method = &m;
    known.push_back(m.name);
  }
  if (method == nullptr) {
    const std::string near = call::nearest_word(request.method(), known);
    const std::string what =
        "there is no method '" + request.method() + "'" + (near.empty() ? "" : "; did you mean '" + near + "'?");
    return call->finish(Status(Code::kInvalid, "METHOD_UNKNOWN", what).with_field("method", what, "ScheduleTask"));
  }
  const bool self =
      *tenant == call->principal.tenant && (request.principal().empty() || request.principal() == call->principal.name);
  if (!self && *tenant == call->principal.tenant && !set->permits(call->principal, "identity.read", "")) {
    return call->finish(Status(Code::kPermission, "PERMISSION_DENIED",
                               call->principal.name + " may ask about itself only; for others it lacks identity.read")
                            .with_help("security.md#roles"));
  }
  call::Principal subject = call->principal;
  if (!self) {
    subject = {};
    subject.kind = call::Principal::Kind::kUser;
    subject.tenant = *tenant;
    subject.name = request.principal();
    env_.directory.complete(subject);
  }
  std::string wire;
  if (request.has_request()) {
    const call::MessagePlan& plan = call::Contract::get().plan("google.protobuf.Struct");
    const std::string json = call::wire_to_json(plan, request.request().SerializeAsString()).value_or("{}");
    auto parsed = call::json_to_wire(*method->request, json);
    if (!parsed) return call->finish(std::move(parsed.error()));
    wire = std::move(*parsed);
  }
  std::string resource = request.resource();
  if (resource.empty() && !method->resource.empty()) resource = call::get_text(method->resource, wire).value_or("");
  const call::AccessQuery query{.principal = subject,
                                .method = method,
                                .permission = call::PermissionTable::get().of(*method),
                                .name_space = request.namespace_(),
                                .resource = resource,
                                .request = wire,
                                .address = call->credentials.address,
                                .door = "grpc",
                                .wall = env_.clock.wall()};
  const Status active = env_.directory.check_principal(subject.tenant, subject.name);
  call->reply(explanation(*set, query, active).SerializeAsString());
}

void IdentityService::signing_keys(const CallPtr& call) {
  read(call, [this, call](const GroupView& view) {
    v1::SigningKeys out;
    std::vector<SigningKeyRow> rows;
    kSigningKeys.scan(view, kNoScope, "", "", [&](std::string_view, SigningKeyRow row) {
      if (row.retire_us() == 0 || row.retire_us() > env_.clock.wall().us) rows.push_back(std::move(row));
      return true;
    });
    std::ranges::sort(rows, std::greater{}, &SigningKeyRow::create_us);
    for (const SigningKeyRow& row : rows) {
      const auto jwk = env_.crypto.jwk(row.public_pem());
      if (!jwk) return call->finish(jwk.error());
      v1::JsonWebKey& key = *out.add_keys();
      key.set_kty(jwk->kty);
      key.set_crv(jwk->crv);
      key.set_x(jwk->x);
      key.set_kid(jwk->kid);
      key.set_alg(jwk->alg);
      key.set_use("sig");
    }
    call->reply(out.SerializeAsString());
  });
}

}  // namespace uccp::identity
