// What is configured: tenants, namespaces, users, roles, bindings, policies. The rest is in identity_tokens.cc,
// identity_reads.cc and identity_rules.cc.
#include "services/identity/identity_service.h"

#include <google/protobuf/util/field_mask_util.h>

#include <algorithm>

#include "call/command.h"
#include "call/contract.h"
#include "call/policy/roles.h"
#include "machine/read_level.h"
#include "services/message_types.h"

namespace uccp::identity {

using call::CallPtr;
using google::protobuf::util::FieldMaskUtil;
using internal::v1::DeleteIdentityCommand;
using internal::v1::IdentityKind;
using internal::v1::PutIdentityCommand;
using services::parse;

namespace {

std::string method_name(std::string_view rpc) { return "uccp.v1.Identity/" + std::string(rpc); }

template <typename Request>
Request request_of(const std::string& bytes) {
  return parse<Request>(bytes);
}

// The mask may name only what the caller may set.
template <typename Message>
Status check_mask(const google::protobuf::FieldMask& mask, std::string_view field) {
  for (const std::string& path : mask.paths()) {
    const call::FieldPlan* plan =
        call::Contract::get().plan(Message::descriptor()->full_name()).by_name(path.substr(0, path.find('.')));
    const bool known = plan != nullptr && FieldMaskUtil::IsValidPath<Message>(path);
    if (known && !plan->output_only && !plan->immutable && path != "name" && path != "password") continue;
    return Status(Code::kInvalid, "FIELD_INVALID", "the update mask names '" + path + "', which cannot be changed")
        .with_field("updateMask", "'" + path + "' cannot be changed by an update of the " + std::string(field));
  }
  return Status::ok();
}

}  // namespace

IdentityService::IdentityService(IdentityEnvironment environment) : env_(std::move(environment)) {
  env_.passwords.post([this] { dummy_hash_ = env_.crypto.hash_password("no password of anybody").value_or(""); });
}

void IdentityService::add_handlers(call::HandlerTable& handlers) {
  using Bytes = void (IdentityService::*)(const CallPtr&, const std::string&);
  const std::pair<std::string_view, Bytes> changes[] = {
      {"CreateTenant", &IdentityService::create_tenant},   {"UpdateTenant", &IdentityService::update_tenant},
      {"DeleteTenant", &IdentityService::delete_tenant},   {"DeleteNamespace", &IdentityService::delete_namespace},
      {"CreateUser", &IdentityService::create_user},       {"UpdateUser", &IdentityService::update_user},
      {"CreateBinding", &IdentityService::create_binding}, {"SetPolicy", &IdentityService::set_policy}};
  for (const auto& [rpc, function] : changes) {
    handlers.add(method_name(rpc),
                 [this, function](const CallPtr& call, const std::string& bytes) { (this->*function)(call, bytes); });
  }
  handlers.add(method_name("CreateRole"),
               [this](const CallPtr& call, const std::string& bytes) { put_role(call, bytes, true); });
  handlers.add(method_name("UpdateRole"),
               [this](const CallPtr& call, const std::string& bytes) { put_role(call, bytes, false); });
  handlers.add(method_name("CreateNamespace"), [this](const CallPtr& call, const std::string& bytes) {
    const auto request = request_of<v1::CreateNamespaceRequest>(bytes);
    PutIdentityCommand command;
    command.set_tenant(request.tenant());
    *command.mutable_name_space() = request.declared();
    command.set_create(true);
    put(call, bytes, std::move(command));
  });
  const auto add_removal = [&]<typename Request>(Request*, std::string_view rpc, IdentityKind kind) {
    handlers.add(method_name(rpc), [this, kind](const CallPtr& call, const std::string& bytes) {
      const auto request = request_of<Request>(bytes);
      DeleteIdentityCommand command;
      command.set_tenant(request.tenant());
      command.set_kind(kind);
      if constexpr (requires { request.name(); }) command.set_key(request.name());
      else command.set_key(request.id());
      if constexpr (requires { request.if_match(); }) command.set_if_match(request.if_match());
      remove(call, bytes, std::move(command));
    });
  };
  add_removal(static_cast<v1::DeleteUserRequest*>(nullptr), "DeleteUser", internal::v1::IDENTITY_KIND_USER);
  add_removal(static_cast<v1::DeleteRoleRequest*>(nullptr), "DeleteRole", internal::v1::IDENTITY_KIND_ROLE);
  add_removal(static_cast<v1::DeleteBindingRequest*>(nullptr), "DeleteBinding", internal::v1::IDENTITY_KIND_BINDING);
  add_removal(static_cast<v1::DeletePolicyRequest*>(nullptr), "DeletePolicy", internal::v1::IDENTITY_KIND_POLICY);
  add_removal(static_cast<v1::DeleteApiKeyRequest*>(nullptr), "DeleteApiKey", internal::v1::IDENTITY_KIND_API_KEY);
  add_reads(handlers);
  add_lists(handlers);
  add_tokens(handlers);
}

// --- common parts ---------------------------------------------------------------------------------------------------

void IdentityService::propose(const CallPtr& call, std::string_view bytes, std::string_view verb,
                              const google::protobuf::MessageLite& command,
                              std::function<void(machine::Applied)> done) {
  auto envelope =
      call::make_envelope(*call, bytes, std::string(kDomain) + "." + std::string(verb), command.SerializeAsString());
  // Who may what belongs to the tenant, not to the namespace that the credential names first.
  envelope.scope.name_space.clear();
  env_.proposer.propose(kCoreGroup, std::move(envelope),
                        [call, done = std::move(done)](Result<machine::Applied> applied) {
                          if (!applied) return call->finish(std::move(applied.error()));
                          call->set_header("Uccp-Session", machine::session_token({{kCoreGroup, applied->index}}));
                          done(std::move(*applied));
                        });
}

void IdentityService::read(const CallPtr& call, std::function<void(const machine::GroupView&)> then) {
  env_.reader.read(kCoreGroup, call->read_level, [call, then = std::move(then)](Result<machine::GroupView> view) {
    if (!view) return call->finish(std::move(view.error()));
    then(*view);
  });
}

void IdentityService::put(const CallPtr& call, std::string_view bytes, PutIdentityCommand command, Shown shown) {
  auto tenant = target_tenant(*call, command.tenant());
  if (!tenant) return call->finish(std::move(tenant.error()));
  command.set_tenant(*tenant);
  propose(call, bytes, "put", command, [call, shown = std::move(shown)](machine::Applied applied) {
    if (shown) return shown(std::move(applied.response));
    call->reply(std::move(applied.response));
  });
}

void IdentityService::remove(const CallPtr& call, std::string_view bytes, DeleteIdentityCommand command) {
  auto tenant = target_tenant(*call, command.tenant());
  if (!tenant) return call->finish(std::move(tenant.error()));
  command.set_tenant(*tenant);
  propose(call, bytes, "delete", command, [call](const machine::Applied&) { call->reply(""); });
}

// --- tenants and namespaces -----------------------------------------------------------------------------------------

void IdentityService::create_tenant(const CallPtr& call, const std::string& bytes) {
  const auto request = request_of<v1::CreateTenantRequest>(bytes);
  PutIdentityCommand command;
  *command.mutable_tenant_row() = request.tenant();
  command.mutable_tenant_row()->clear_etag();
  if (request.tenant().status() != v1::TENANT_STATUS_SUSPENDED)
    command.mutable_tenant_row()->set_status(v1::TENANT_STATUS_ACTIVE);
  command.set_create(true);
  put(call, bytes, std::move(command));
}

void IdentityService::update_tenant(const CallPtr& call, const std::string& bytes) {
  const auto request = request_of<v1::UpdateTenantRequest>(bytes);
  Status mask = check_mask<v1::Tenant>(request.update_mask(), "tenant");
  if (!mask.is_ok()) return call->finish(std::move(mask));
  if (request.tenant().status() == v1::TENANT_STATUS_DELETED) {
    return call->finish(Status(Code::kInvalid, "FIELD_INVALID", "a tenant is removed by DeleteTenant")
                            .with_field("tenant.status", "cannot be set to DELETED", "SUSPENDED"));
  }
  PutIdentityCommand command;
  *command.mutable_tenant_row() = request.tenant();
  *command.mutable_mask() = request.update_mask();
  command.set_if_match(request.if_match());
  put(call, bytes, std::move(command));
}

void IdentityService::delete_tenant(const CallPtr& call, const std::string& bytes) {
  const auto request = request_of<v1::DeleteTenantRequest>(bytes);
  const std::string& tenant = request.name();
  if (tenant != call::kOperatorsTenant && env_.has_data({tenant, ""})) {
    return call->finish(Status(Code::kFailedPrecondition, "TENANT_NOT_EMPTY",
                               "the tenant '" + tenant + "' has services, locks or tasks at work; remove them first")
                            .with_resource("tenant", tenant));
  }
  DeleteIdentityCommand command;
  command.set_tenant(tenant);
  command.set_kind(internal::v1::IDENTITY_KIND_TENANT);
  command.set_key(tenant);
  command.set_if_match(request.if_match());
  propose(call, bytes, "delete", command,
          [this, call, tenant](const machine::Applied&) { sweep_tenant(call, tenant); });
}

void IdentityService::sweep_tenant(const CallPtr& call, const std::string& tenant) {
  DeleteIdentityCommand command;
  command.set_kind(internal::v1::IDENTITY_KIND_TENANT);
  command.set_key(tenant);
  machine::Envelope envelope;
  envelope.principal = call->principal.name;
  envelope.scope = {call->principal.tenant, ""};
  envelope.command = std::string(kDomain) + ".sweep";
  envelope.payload = command.SerializeAsString();
  env_.proposer.propose(kCoreGroup, std::move(envelope), [this, call, tenant](Result<machine::Applied> applied) {
    if (!applied) return call->finish(std::move(applied.error()));
    if (applied->response == "more") return sweep_tenant(call, tenant);
    call->reply("");
  });
}

void IdentityService::delete_namespace(const CallPtr& call, const std::string& bytes) {
  const auto request = request_of<v1::DeleteNamespaceRequest>(bytes);
  auto tenant = target_tenant(*call, request.tenant());
  if (!tenant) return call->finish(std::move(tenant.error()));
  if (env_.has_data({*tenant, request.name()})) {
    return call->finish(
        Status(Code::kFailedPrecondition, "NAMESPACE_NOT_EMPTY",
               "there are services, tasks or locks in the namespace '" + request.name() + "'; remove them first")
            .with_resource("namespace", request.name()));
  }
  DeleteIdentityCommand command;
  command.set_tenant(*tenant);
  command.set_kind(internal::v1::IDENTITY_KIND_NAMESPACE);
  command.set_key(request.name());
  remove(call, bytes, std::move(command));
}

// --- users, roles, bindings, policies -------------------------------------------------------------------------------

void IdentityService::create_user(const CallPtr& call, const std::string& bytes) {
  const auto request = request_of<v1::CreateUserRequest>(bytes);
  auto tenant = target_tenant(*call, request.tenant());
  if (!tenant) return call->finish(std::move(tenant.error()));
  const v1::User& user = request.user();
  PutIdentityCommand command;
  command.set_tenant(*tenant);
  command.set_create(true);
  v1::User& stored = *command.mutable_user()->mutable_user();
  stored = user;
  stored.clear_password();
  if (stored.kind() == v1::USER_KIND_UNSPECIFIED) stored.set_kind(v1::USER_KIND_HUMAN);
  Status allowed = may_act_for(*call, *tenant, user.name(), {user.groups().begin(), user.groups().end()});
  if (!allowed.is_ok()) return call->finish(std::move(allowed));
  if (user.password().empty()) return put(call, bytes, std::move(command));
  Status strong = check_password_strength(user.password(), user.name());
  if (strong.is_ok() && stored.kind() == v1::USER_KIND_SERVICE_ACCOUNT) {
    strong = Status(Code::kInvalid, "FIELD_INVALID", "a service account has no password; make an API key for it")
                 .with_field("user.password", "is for humans only");
  }
  if (!strong.is_ok()) return call->finish(std::move(strong));
  env_.passwords.post([this, call, bytes, command = std::move(command), password = user.password()]() mutable {
    auto hash = env_.crypto.hash_password(password);
    if (!hash) return call->finish(std::move(hash.error()));
    command.mutable_user()->set_password_hash(std::move(*hash));
    put(call, bytes, std::move(command));
  });
}

void IdentityService::update_user(const CallPtr& call, const std::string& bytes) {
  const auto request = request_of<v1::UpdateUserRequest>(bytes);
  auto tenant = target_tenant(*call, request.tenant());
  if (!tenant) return call->finish(std::move(tenant.error()));
  const v1::User& user = request.user();
  Status allowed = check_mask<v1::User>(request.update_mask(), "user");
  if (allowed.is_ok() && !user.password().empty()) {
    allowed = Status(Code::kInvalid, "FIELD_INVALID", "a password is changed by SetPassword")
                  .with_field("user.password", "cannot be changed by an update; see uccp-cli user set-password");
  }
  if (allowed.is_ok()) allowed = may_act_for(*call, *tenant, user.name(), {user.groups().begin(), user.groups().end()});
  if (!allowed.is_ok()) return call->finish(std::move(allowed));
  PutIdentityCommand command;
  command.set_tenant(*tenant);
  *command.mutable_user()->mutable_user() = user;
  // Of one kind for ever: a service account must not get a password.
  command.mutable_user()->mutable_user()->clear_kind();
  *command.mutable_mask() = request.update_mask();
  command.set_if_match(request.if_match());
  put(call, bytes, std::move(command));
}

void IdentityService::put_role(const CallPtr& call, const std::string& bytes, bool create) {
  v1::UpdateRoleRequest request;
  if (create) {
    auto creation = request_of<v1::CreateRoleRequest>(bytes);
    *request.mutable_role() = std::move(*creation.mutable_role());
    request.set_tenant(creation.tenant());
  } else {
    request = request_of<v1::UpdateRoleRequest>(bytes);
  }
  auto tenant = target_tenant(*call, request.tenant());
  if (!tenant) return call->finish(std::move(tenant.error()));
  const auto permissions = permissions_of(*tenant, request.role());
  Status allowed = permissions ? check_mask<v1::Role>(request.update_mask(), "role") : permissions.error();
  if (allowed.is_ok()) allowed = may_give(*call, *tenant, *permissions, {});
  if (!allowed.is_ok()) return call->finish(std::move(allowed));
  PutIdentityCommand command;
  command.set_tenant(*tenant);
  *command.mutable_role() = request.role();
  *command.mutable_mask() = request.update_mask();
  command.set_if_match(request.if_match());
  command.set_create(create);
  put(call, bytes, std::move(command));
}

void IdentityService::create_binding(const CallPtr& call, const std::string& bytes) {
  const auto request = request_of<v1::CreateBindingRequest>(bytes);
  auto tenant = target_tenant(*call, request.tenant());
  if (!tenant) return call->finish(std::move(tenant.error()));
  const v1::Binding& binding = request.binding();
  // Whether the role exists is decided where it is stored.
  const auto permissions = env_.directory.newest()->role(*tenant, binding.role()).value_or(call::PermissionSet());
  Status allowed = may_give(*call, *tenant, permissions, {binding.namespaces().begin(), binding.namespaces().end()});
  if (!allowed.is_ok()) return call->finish(std::move(allowed));
  PutIdentityCommand command;
  command.set_tenant(*tenant);
  *command.mutable_binding() = binding;
  command.mutable_binding()->set_id(make_id("bind"));
  command.mutable_binding()->set_created_by(call->principal.name);
  command.set_create(true);
  put(call, bytes, std::move(command));
}

void IdentityService::set_policy(const CallPtr& call, const std::string& bytes) {
  const auto request = request_of<v1::SetPolicyRequest>(bytes);
  auto tenant = target_tenant(*call, request.tenant());
  if (!tenant) return call->finish(std::move(tenant.error()));
  Status good = check_statements(*call, *tenant, request.policy().text());
  if (!good.is_ok()) return call->finish(std::move(good));
  if (request.validate_only()) return call->reply(request.policy().SerializeAsString());
  PutIdentityCommand command;
  command.set_tenant(*tenant);
  *command.mutable_policy() = request.policy();
  command.set_if_match(request.if_match());
  put(call, bytes, std::move(command));
}

}  // namespace uccp::identity
