#include "services/secrets/secrets_state.h"

#include <algorithm>

#include "base/bytes.h"
#include "machine/stable_bytes.h"
#include "services/message_types.h"

namespace uccp::secrets {
namespace {

using internal::v1::SecretRow;
using internal::v1::SecretValueRow;
using internal::v1::WrappingKeyRow;
using machine::ApplyContext;
using machine::ApplyResult;
using machine::Scope;
using services::parse;
using services::set_wall;

constexpr std::string_view kCount = "secrets";
const Scope kCluster;

uint64_t number_in(const std::optional<std::string>& stored) { return stored ? ByteReader(*stored).u64() : 0; }
std::string bytes_of(uint64_t number) { return ByteWriter().u64(number).take(); }

void add_uses(ApplyContext& context, const std::string& key_id, int64_t more) {
  const uint64_t uses = number_in(kKeyUses.get(context.state(), kCluster, key_id)) + static_cast<uint64_t>(more);
  if (uses == 0) return kKeyUses.erase(context.state(), kCluster, key_id);
  kKeyUses.put(context.state(), kCluster, key_id, bytes_of(uses));
}

Status key_changed() {
  return Status(Code::kConflict, std::string(kKeyChanged), "the wrapping key was changed meanwhile; try again");
}

Status check_etag(const std::optional<SecretRow>& row, const std::string& name, const std::string& if_match) {
  if (if_match.empty() || (row ? if_match == row->secret().etag() : if_match == "0")) return Status::ok();
  const std::string seen = row ? "has the etag " + row->secret().etag() : "does not exist";
  return Status(
             Code::kConflict, "ETAG_MISMATCH",
             "the secret '" + name + "' " + seen + ", which is not what if_match says: " + if_match + "; read it again")
      .with_resource("secret", name);
}

// The key that a new value names is in force, or the first one and comes with it.
Status take_key(ApplyContext& context, const internal::v1::PutSecretCommand& command) {
  const auto current = key_in_force(context.state());
  if (current) return current->id() == command.value().key_id() ? Status::ok() : key_changed();
  if (!command.has_key() || command.key().id() != command.value().key_id()) return key_changed();
  kWrappingKeys.put(context.state(), kCluster, command.key().id(), command.key());
  return Status::ok();
}

Status take_place(ApplyContext& context, uint64_t secrets_max) {
  const uint64_t count = number_in(kSecretCounts.get(context.state(), context.scope(), kCount));
  if (count >= secrets_max) {
    return Status(Code::kExhausted, "SECRETS_EXHAUSTED",
                  "the namespace has " + std::to_string(count) + " secrets, as many as it may have; delete some")
        .with_help("secrets.md#limits");
  }
  kSecretCounts.put(context.state(), context.scope(), kCount, bytes_of(count + 1));
  return Status::ok();
}

void drop_values(ApplyContext& context, SecretRow& row, int first, int count) {
  for (int i = first; i < first + count; ++i) add_uses(context, row.values(i).key_id(), -1);
  row.mutable_values()->DeleteSubrange(first, count);
  row.mutable_secret()->mutable_versions()->DeleteSubrange(first, count);
}

void store(ApplyContext& context, SecretRow& row) {
  row.mutable_secret()->set_etag(std::to_string(context.index().value));
  kSecrets.put(context.state(), context.scope(), row.secret().name(), row);
}

ApplyResult put(ApplyContext& context, std::string_view payload) {
  auto command = parse<internal::v1::PutSecretCommand>(payload);
  const std::string& name = command.secret().name();
  auto stored = kSecrets.get(context.state(), context.scope(), name);
  UCCP_RETURN_IF_ERROR(check_etag(stored, name, command.if_match()));
  UCCP_RETURN_IF_ERROR(take_key(context, command));
  if (!stored) UCCP_RETURN_IF_ERROR(take_place(context, command.secrets_max()));
  const WallTime now = context.envelope().wall;
  SecretRow row = stored.value_or(SecretRow());
  v1::Secret& secret = *row.mutable_secret();
  if (!stored) {
    secret.set_name(name);
    secret.set_namespace_(context.scope().name_space);
    set_wall(secret.mutable_create_time(), now);
  }
  if (command.secret().labels_size() > 0) *secret.mutable_labels() = command.secret().labels();
  secret.set_version(secret.version() + 1);
  set_wall(secret.mutable_update_time(), now);
  v1::SecretVersion& version = *secret.add_versions();
  version.set_version(secret.version());
  version.set_key_id(command.value().key_id());
  set_wall(version.mutable_create_time(), now);
  SecretValueRow& value = *row.add_values();
  value = std::move(*command.mutable_value());
  value.set_version(secret.version());
  add_uses(context, value.key_id(), 1);
  const int versions_max = static_cast<int>(std::max<uint32_t>(command.versions_max(), 1));
  if (row.values_size() > versions_max) drop_values(context, row, 0, row.values_size() - versions_max);
  store(context, row);
  return machine::stable_bytes(row.secret());
}

// Index of the version among those that are kept; 0 means the newest. Errors: not_found.
Result<int> find_version(const SecretRow& row, uint32_t version) {
  if (version == 0) return row.values_size() - 1;
  for (int i = 0; i < row.values_size(); ++i) {
    if (row.values(i).version() == version) return i;
  }
  return fail(Status(Code::kNotFound, "SECRET_VERSION_NOT_FOUND",
                     "the secret '" + row.secret().name() + "' has no version " + std::to_string(version) +
                         " any more; GetSecret lists those that are kept")
                  .with_resource("secret", row.secret().name()));
}

ApplyResult remove(ApplyContext& context, std::string_view payload) {
  const auto command = parse<internal::v1::DeleteSecretCommand>(payload);
  auto row = kSecrets.get(context.state(), context.scope(), command.name());
  if (!row) return fail(secret_not_found(command.name()));
  UCCP_RETURN_IF_ERROR(check_etag(row, command.name(), command.if_match()));
  if (command.version() == 0) {
    drop_values(context, *row, 0, row->values_size());
    kSecrets.erase(context.state(), context.scope(), command.name());
    const uint64_t count = number_in(kSecretCounts.get(context.state(), context.scope(), kCount));
    if (count <= 1) kSecretCounts.erase(context.state(), context.scope(), kCount);
    else kSecretCounts.put(context.state(), context.scope(), kCount, bytes_of(count - 1));
    return std::string();
  }
  UCCP_TRY(const int at, find_version(*row, command.version()));
  if (at == row->values_size() - 1) {
    return fail(Status(Code::kFailedPrecondition, "SECRET_VERSION_NEWEST",
                       "version " + std::to_string(command.version()) + " is the newest of the secret '" +
                           command.name() + "'; store another one first, or delete the whole secret")
                    .with_resource("secret", command.name()));
  }
  drop_values(context, *row, at, 1);
  store(context, *row);
  return std::string();
}

// Changes nothing: its audit record is the purpose. Answers what is needed to open the value.
ApplyResult access(ApplyContext& context, std::string_view payload) {
  const auto command = parse<internal::v1::AccessSecretCommand>(payload);
  const auto row = kSecrets.get(context.state(), context.scope(), command.name());
  if (!row) return fail(secret_not_found(command.name()));
  UCCP_TRY(const int at, find_version(*row, command.version()));
  internal::v1::AccessSecretResult out;
  *out.mutable_value() = row->values(at);
  const auto key = kWrappingKeys.get(context.state(), kCluster, out.value().key_id());
  if (key) *out.mutable_key() = *key;
  return machine::stable_bytes(out);
}

ApplyResult add_key(ApplyContext& context, std::string_view payload) {
  const auto command = parse<internal::v1::AddWrappingKeyCommand>(payload);
  if (auto current = key_in_force(context.state())) {
    current->set_retired(true);
    kWrappingKeys.put(context.state(), kCluster, current->id(), *current);
  }
  kWrappingKeys.put(context.state(), kCluster, command.key().id(), command.key());
  return command.key().id();
}

ApplyResult rewrap(ApplyContext& context, std::string_view payload) {
  const auto command = parse<internal::v1::RewrapSecretCommand>(payload);
  const Scope scope{command.tenant(), command.name_space()};
  const auto current = key_in_force(context.state());
  for (const SecretValueRow& wrapped : command.values()) {
    if (!current || wrapped.key_id() != current->id()) return fail(key_changed());
  }
  auto row = kSecrets.get(context.state(), scope, command.name());
  uint64_t count = 0;
  for (const SecretValueRow& wrapped : command.values()) {
    for (int i = 0; row && i < row->values_size(); ++i) {
      SecretValueRow& value = *row->mutable_values(i);
      // The tag tells a value from one that a secret of the same name got after it was deleted.
      if (value.version() != wrapped.version() || !value.sealed().ends_with(wrapped.sealed())) continue;
      add_uses(context, value.key_id(), -1);
      add_uses(context, wrapped.key_id(), 1);
      value.set_wrapped_key(wrapped.wrapped_key());
      value.set_key_id(wrapped.key_id());
      row->mutable_secret()->mutable_versions(i)->set_key_id(wrapped.key_id());
      ++count;
    }
  }
  // The etag stays: what the caller sees of its secret is the same.
  if (count > 0) kSecrets.put(context.state(), scope, command.name(), *row);
  return bytes_of(count);
}

ApplyResult drop_keys(ApplyContext& context, std::string_view payload) {
  const auto command = parse<internal::v1::DropWrappingKeysCommand>(payload);
  for (const std::string& id : command.ids()) {
    const auto key = kWrappingKeys.get(context.state(), kCluster, id);
    const bool is_used = number_in(kKeyUses.get(context.state(), kCluster, id)) > 0;
    if (key && key->retired() && !is_used) kWrappingKeys.erase(context.state(), kCluster, id);
  }
  return std::string();
}

}  // namespace

std::map<std::string, machine::ApplyFunction, std::less<>> SecretsState::commands() {
  return {{"put", put},         {"delete", remove}, {"access", access},
          {"add_key", add_key}, {"rewrap", rewrap}, {"drop_keys", drop_keys}};
}

std::optional<WrappingKeyRow> key_in_force(const machine::KeyReader& state) {
  std::optional<WrappingKeyRow> found;
  kWrappingKeys.scan(state, kCluster, "", "", [&](std::string_view, WrappingKeyRow row) {
    if (!row.retired()) found = std::move(row);
    return !found.has_value();
  });
  return found;
}

Status secret_not_found(std::string_view name) {
  return Status(Code::kNotFound, "SECRET_NOT_FOUND", "there is no secret '" + std::string(name) + "' in this namespace")
      .with_resource("secret", std::string(name));
}

}  // namespace uccp::secrets
