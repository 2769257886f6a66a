// Applying: tenants, namespaces, users, roles, bindings, policies and API keys.
#include <google/protobuf/util/field_mask_util.h>

#include <set>

#include "base/bytes.h"
#include "call/policy/policy_set.h"
#include "call/policy/roles.h"
#include "machine/stable_bytes.h"
#include "services/identity/identity_apply.h"
#include "services/message_types.h"

namespace uccp::identity {
namespace {

using google::protobuf::FieldMask;
using google::protobuf::util::FieldMaskUtil;
using machine::ApplyContext;
using machine::ApplyResult;
using services::parse;
using services::set_wall;
using namespace internal::v1;  // NOLINT(google-build-using-namespace): rows and kinds of this domain

Status exists(IdentityKind kind, const std::string& name) {
  const Status missing = not_found(kind, name);
  return Status(Code::kAlreadyExists, "ALREADY_EXISTS",
                "there is a " + missing.detail().resource_type + " '" + name + "' already")
      .with_resource(missing.detail().resource_type, name);
}

template <typename Message>
std::string etag_of(const Message& message) {
  if constexpr (requires { message.etag(); }) return message.etag();
  return {};
}

Status check_etag(const std::string& stored, const PutIdentityCommand& command) {
  if (command.if_match().empty() || command.if_match() == stored) return Status::ok();
  return Status(Code::kConflict, "ETAG_MISMATCH",
                "the stored etag is " + stored + ", not " + command.if_match() +
                    ": it was changed by somebody else; read it again");
}

// The stored message with the fields of the incoming one that the mask names.
template <typename Message>
void merge(const Message& incoming, FieldMask mask, Message& stored) {
  if (mask.paths().empty()) {
    std::vector<const google::protobuf::FieldDescriptor*> fields;
    incoming.GetReflection()->ListFields(incoming, &fields);
    for (const auto* field : fields) mask.add_paths(field->name());
  }
  FieldMaskUtil::MergeOptions options;
  options.set_replace_message_fields(true);
  options.set_replace_repeated_fields(true);
  FieldMaskUtil::MergeMessageTo(incoming, mask, options, &stored);
}

template <typename Message>
void stamp(ApplyContext& c, Message& message, bool fresh) {
  if (fresh) set_wall(message.mutable_create_time(), c.envelope().wall);
  if constexpr (requires { message.mutable_update_time(); }) set_wall(message.mutable_update_time(), c.envelope().wall);
  if constexpr (requires { message.set_etag(""); }) message.set_etag(std::to_string(c.index().value));
}

// Creates or changes the message `stored` of a row, as the command says.
template <typename Message>
Status fill(ApplyContext& c, const PutIdentityCommand& command, IdentityKind kind, const std::string& name,
            const Message& incoming, bool present, Message& stored) {
  if (command.create() && present) return exists(kind, name);
  if (!command.create() && !present && kind != IDENTITY_KIND_POLICY) return not_found(kind, name);
  UCCP_RETURN_IF_ERROR(check_etag(present ? etag_of(stored) : "", command));
  if (!present) {
    UCCP_RETURN_IF_ERROR(count(c, command.tenant(), kind, 1));
    stored = incoming;
  } else if (kind == IDENTITY_KIND_POLICY) {
    const auto created = stored.create_time();
    stored = incoming;
    *stored.mutable_create_time() = created;
  } else {
    merge(incoming, command.mask(), stored);
  }
  stamp(c, stored, !present);
  return Status::ok();
}

template <typename Message, typename Table>
ApplyResult put_simple(ApplyContext& c, const PutIdentityCommand& command, IdentityKind kind, const Table& table,
                       const std::string& key, const Message& incoming) {
  const machine::Scope scope = kind == IDENTITY_KIND_TENANT ? kNoScope : tenant_scope(command.tenant());
  auto stored = table.get(c.state(), scope, key);
  const bool present = stored.has_value();
  if (!present) stored.emplace();
  UCCP_RETURN_IF_ERROR(fill(c, command, kind, key, incoming, present, *stored));
  table.put(c.state(), scope, key, *stored);
  announce(c, command.tenant(), key, ChangeKind::kAuthority);
  return machine::stable_bytes(*stored);
}

// --- tenants and users ----------------------------------------------------------------------------------------------

Status tenant_is_there(ApplyContext& c, const std::string& tenant) {
  if (tenant == call::kOperatorsTenant) return Status::ok();
  const auto row = kTenants.get(c.state(), kNoScope, tenant);
  if (row && row->status() != v1::TENANT_STATUS_DELETED) return Status::ok();
  return not_found(IDENTITY_KIND_TENANT, tenant);
}

ApplyResult put_tenant(ApplyContext& c, const PutIdentityCommand& command) {
  const v1::Tenant& incoming = command.tenant_row();
  if (incoming.name() == call::kSystemTenant || (command.create() && incoming.name() == call::kOperatorsTenant)) {
    return fail(exists(IDENTITY_KIND_TENANT, incoming.name()));
  }
  const auto stored = kTenants.get(c.state(), kNoScope, incoming.name());
  if (!command.create() && stored && stored->status() == v1::TENANT_STATUS_DELETED) {
    return fail(not_found(IDENTITY_KIND_TENANT, incoming.name()));
  }
  PutIdentityCommand own = command;
  own.set_tenant(incoming.name());
  if (incoming.name() == call::kOperatorsTenant) {
    if (incoming.status() == v1::TENANT_STATUS_SUSPENDED) {
      return fail(Code::kFailedPrecondition, "OPERATORS_TENANT",
                  "the tenant 'default' runs the cluster and cannot be suspended");
    }
    // It is there without a row.
    if (!stored) own.set_create(true);
  }
  return put_simple(c, own, IDENTITY_KIND_TENANT, kTenants, incoming.name(), incoming);
}

ApplyResult put_user(ApplyContext& c, const PutIdentityCommand& command) {
  const v1::User& incoming = command.user().user();
  const machine::Scope scope = tenant_scope(command.tenant());
  auto row = kUsers.get(c.state(), scope, incoming.name());
  const bool present = row.has_value();
  if (!present) {
    row = command.user();
    row->clear_user();
  }
  UCCP_RETURN_IF_ERROR(fill(c, command, IDENTITY_KIND_USER, incoming.name(), incoming, present, *row->mutable_user()));
  row->mutable_user()->set_has_password(!row->password_hash().empty());
  row->mutable_user()->set_tenant(command.tenant());
  kUsers.put(c.state(), scope, incoming.name(), *row);
  announce(c, command.tenant(), incoming.name(), ChangeKind::kAuthority);
  return machine::stable_bytes(row->user());
}

// --- roles and bindings ---------------------------------------------------------------------------------------------

bool role_exists(ApplyContext& c, const std::string& tenant, const std::string& role) {
  return call::find_built_in_role(role) != nullptr || kRoles.contains(c.state(), tenant_scope(tenant), role);
}

// True if following what `from` inherits leads to `to`.
bool reaches(ApplyContext& c, const std::string& tenant, const std::string& from, const std::string& to,
             std::set<std::string>& seen) {
  if (from == to) return true;
  if (!seen.insert(from).second) return false;
  const auto role = kRoles.get(c.state(), tenant_scope(tenant), from);
  if (!role) return false;
  for (const std::string& next : role->inherits()) {
    if (reaches(c, tenant, next, to, seen)) return true;
  }
  return false;
}

ApplyResult put_role(ApplyContext& c, const PutIdentityCommand& command) {
  const v1::Role& role = command.role();
  if (call::find_built_in_role(role.name()) != nullptr) {
    if (command.create()) return fail(exists(IDENTITY_KIND_ROLE, role.name()));
    return fail(Code::kFailedPrecondition, "ROLE_BUILT_IN",
                "the role '" + role.name() + "' is built in and cannot be changed");
  }
  for (const std::string& inherited : role.inherits()) {
    if (!role_exists(c, command.tenant(), inherited)) return fail(not_found(IDENTITY_KIND_ROLE, inherited));
    std::set<std::string> seen;
    if (reaches(c, command.tenant(), inherited, role.name(), seen)) {
      return fail(
          Code::kFailedPrecondition, "ROLE_CIRCLE",
          "the role '" + inherited + "' inherits '" + role.name() + "' already: they would inherit in a circle");
    }
  }
  return put_simple(c, command, IDENTITY_KIND_ROLE, kRoles, role.name(), role);
}

ApplyResult put_binding(ApplyContext& c, const PutIdentityCommand& command) {
  v1::Binding binding = command.binding();
  if (!role_exists(c, command.tenant(), binding.role())) return fail(not_found(IDENTITY_KIND_ROLE, binding.role()));
  return put_simple(c, command, IDENTITY_KIND_BINDING, kBindings, binding.id(), binding);
}

ApplyResult put_api_key(ApplyContext& c, const PutIdentityCommand& command) {
  ApiKeyRow row = command.api_key();
  const machine::Scope scope = tenant_scope(command.tenant());
  auto user = kUsers.get(c.state(), scope, row.key().principal());
  if (!user) return fail(not_found(IDENTITY_KIND_USER, row.key().principal()));
  if (user->api_keys() >= kApiKeysOfUserMax) {
    return fail(Code::kExhausted, "API_KEYS_EXHAUSTED",
                "the user '" + row.key().principal() + "' has " + std::to_string(kApiKeysOfUserMax) +
                    " API keys; delete one first");
  }
  user->set_api_keys(user->api_keys() + 1);
  kUsers.put(c.state(), scope, row.key().principal(), *user);
  set_wall(row.mutable_key()->mutable_create_time(), c.envelope().wall);
  row.set_tenant(command.tenant());
  kApiKeys.put(c.state(), kNoScope, row.key().id(), row);
  kApiKeysOfUser.put(c.state(), scope, owned_key(row.key().principal(), row.key().id()), "");
  announce(c, command.tenant(), row.key().id(), ChangeKind::kOther);
  // With the hash, so that a repeat is told from the first call; the service drops it.
  return machine::stable_bytes(row);
}

// --- removing -------------------------------------------------------------------------------------------------------

template <typename Table>
ApplyResult remove_simple(ApplyContext& c, const DeleteIdentityCommand& command, const Table& table) {
  const machine::Scope scope = tenant_scope(command.tenant());
  const auto row = table.get(c.state(), scope, command.key());
  if (!row) return fail(not_found(command.kind(), command.key()));
  PutIdentityCommand expected;
  expected.set_if_match(command.if_match());
  UCCP_RETURN_IF_ERROR(check_etag(etag_of(*row), expected));
  table.erase(c.state(), scope, command.key());
  UCCP_RETURN_IF_ERROR(count(c, command.tenant(), command.kind(), -1));
  announce(c, command.tenant(), command.key(), ChangeKind::kAuthority);
  return std::string();
}

ApplyResult remove_user(ApplyContext& c, const DeleteIdentityCommand& command) {
  const machine::Scope scope = tenant_scope(command.tenant());
  const auto row = kUsers.get(c.state(), scope, command.key());
  if (!row) return fail(not_found(IDENTITY_KIND_USER, command.key()));
  PutIdentityCommand expected;
  expected.set_if_match(command.if_match());
  UCCP_RETURN_IF_ERROR(check_etag(row->user().etag(), expected));
  erase_api_keys(c, command.tenant(), command.key());
  erase_sessions(c, command.tenant(), command.key());
  // One of the same name that comes later must not inherit its tokens.
  put_revocation(c, command.tenant(), user_revocation_key(command.key()), "user removed", kTokenTtlMaxMs);
  kUsers.erase(c.state(), scope, command.key());
  UCCP_RETURN_IF_ERROR(count(c, command.tenant(), IDENTITY_KIND_USER, -1));
  announce(c, command.tenant(), command.key(), ChangeKind::kAuthority);
  return std::string();
}

ApplyResult remove_role(ApplyContext& c, const DeleteIdentityCommand& command) {
  if (call::find_built_in_role(command.key()) != nullptr) {
    return fail(Code::kFailedPrecondition, "ROLE_BUILT_IN", "the role '" + command.key() + "' is built in and stays");
  }
  std::string user;
  kBindings.scan(c.state(), tenant_scope(command.tenant()), "", "",
                 [&](std::string_view id, const v1::Binding& binding) {
                   if (binding.role() == command.key()) user = "the binding " + std::string(id);
                   return user.empty();
                 });
  kRoles.scan(c.state(), tenant_scope(command.tenant()), "", "", [&](std::string_view name, const v1::Role& role) {
    for (const std::string& inherited : role.inherits()) {
      if (inherited == command.key()) user = "the role " + std::string(name);
    }
    return user.empty();
  });
  if (!user.empty()) {
    return fail(Code::kFailedPrecondition, "ROLE_IN_USE", "the role '" + command.key() + "' is used by " + user);
  }
  return remove_simple(c, command, kRoles);
}

ApplyResult remove_api_key(ApplyContext& c, const DeleteIdentityCommand& command) {
  const auto row = kApiKeys.get(c.state(), kNoScope, command.key());
  if (!row || row->tenant() != command.tenant()) return fail(not_found(IDENTITY_KIND_API_KEY, command.key()));
  erase_api_key(c, *row);
  announce(c, command.tenant(), command.key(), ChangeKind::kCredential);
  return std::string();
}

ApplyResult remove_tenant(ApplyContext& c, const DeleteIdentityCommand& command) {
  if (command.key() == call::kOperatorsTenant) {
    return fail(Code::kFailedPrecondition, "OPERATORS_TENANT",
                "the tenant 'default' runs the cluster and cannot be removed");
  }
  auto row = kTenants.get(c.state(), kNoScope, command.key());
  if (!row || row->status() == v1::TENANT_STATUS_DELETED) return fail(not_found(IDENTITY_KIND_TENANT, command.key()));
  PutIdentityCommand expected;
  expected.set_if_match(command.if_match());
  UCCP_RETURN_IF_ERROR(check_etag(row->etag(), expected));
  // What remains is the name, so that nobody else ever gets it.
  row->set_status(v1::TENANT_STATUS_DELETED);
  row->clear_settings();
  row->clear_labels();
  stamp(c, *row, false);
  kTenants.put(c.state(), kNoScope, command.key(), *row);
  announce(c, command.key(), command.key(), ChangeKind::kAuthority);
  return std::string();
}

}  // namespace

ApplyResult apply_put(ApplyContext& c, std::string_view payload) {
  const auto command = parse<PutIdentityCommand>(payload);
  if (command.row_case() == PutIdentityCommand::kTenantRow) return put_tenant(c, command);
  UCCP_RETURN_IF_ERROR(tenant_is_there(c, command.tenant()));
  switch (command.row_case()) {
    case PutIdentityCommand::kNameSpace:
      return put_simple(c, command, IDENTITY_KIND_NAMESPACE, kNamespaces, command.name_space().name(),
                        command.name_space());
    case PutIdentityCommand::kUser: return put_user(c, command);
    case PutIdentityCommand::kRole: return put_role(c, command);
    case PutIdentityCommand::kBinding: return put_binding(c, command);
    case PutIdentityCommand::kPolicy:
      return put_simple(c, command, IDENTITY_KIND_POLICY, kPolicies, command.policy().name(), command.policy());
    case PutIdentityCommand::kApiKey: return put_api_key(c, command);
    default: return fail(Code::kInternal, "COMMAND_INVALID", "the command stores nothing");
  }
}

ApplyResult apply_delete(ApplyContext& c, std::string_view payload) {
  const auto command = parse<DeleteIdentityCommand>(payload);
  switch (command.kind()) {
    case IDENTITY_KIND_TENANT: return remove_tenant(c, command);
    case IDENTITY_KIND_NAMESPACE: return remove_simple(c, command, kNamespaces);
    case IDENTITY_KIND_USER: return remove_user(c, command);
    case IDENTITY_KIND_ROLE: return remove_role(c, command);
    case IDENTITY_KIND_BINDING: return remove_simple(c, command, kBindings);
    case IDENTITY_KIND_POLICY: return remove_simple(c, command, kPolicies);
    case IDENTITY_KIND_API_KEY: return remove_api_key(c, command);
    default: return fail(Code::kInternal, "COMMAND_INVALID", "the command removes nothing");
  }
}

// Answers "more" while rows are left.
ApplyResult apply_sweep(ApplyContext& c, std::string_view payload) {
  const auto command = parse<DeleteIdentityCommand>(payload);
  const auto tenant = kTenants.get(c.state(), kNoScope, command.key());
  if (!tenant || tenant->status() != v1::TENANT_STATUS_DELETED) return std::string();
  const machine::Scope scope = tenant_scope(command.key());
  size_t left = kRowsPerSweep;
  std::vector<std::string> users;
  kUsers.scan(c.state(), scope, "", "", [&](std::string_view name, const UserRow&) {
    users.emplace_back(name);
    return users.size() < left / 10;
  });
  for (const std::string& user : users) {
    erase_api_keys(c, command.key(), user);
    erase_sessions(c, command.key(), user);
    kUsers.erase(c.state(), scope, user);
  }
  if (!users.empty()) return std::string("more");
  // All other tables of the tenant; their values need not be read.
  for (const machine::TableId table : {161, 163, 164, 165, 171, 172}) {
    const std::string prefix = machine::table_key::scope_prefix(table, scope);
    std::vector<std::string> keys;
    c.state().scan(prefix, machine::prefix_end(prefix), [&](std::string_view key, std::string_view) {
      keys.emplace_back(key);
      return keys.size() < left;
    });
    for (const std::string& key : keys) c.state().erase(key);
    left -= keys.size();
    if (left == 0) return std::string("more");
  }
  return std::string();
}

}  // namespace uccp::identity
