// What the apply functions of the two halves of the state share. Private to this folder.
#pragma once

#include <string>

#include "machine/domain.h"
#include "services/identity/identity_state.h"
#include "services/message_types.h"

namespace uccp::identity {

machine::ApplyResult apply_put(machine::ApplyContext& context, std::string_view payload);
machine::ApplyResult apply_delete(machine::ApplyContext& context, std::string_view payload);
machine::ApplyResult apply_sweep(machine::ApplyContext& context, std::string_view payload);

machine::ApplyResult apply_set_secret(machine::ApplyContext& context, std::string_view payload);
machine::ApplyResult apply_sign_in(machine::ApplyContext& context, std::string_view payload);
machine::ApplyResult apply_rotate_session(machine::ApplyContext& context, std::string_view payload);
machine::ApplyResult apply_revoke(machine::ApplyContext& context, std::string_view payload);
machine::ApplyResult apply_add_signing_key(machine::ApplyContext& context, std::string_view payload);

void announce(machine::ApplyContext& context, std::string_view tenant, std::string_view key, ChangeKind kind);
// One more or fewer of a kind in the tenant. Errors: exhausted IDENTITY_LIMIT.
Status count(machine::ApplyContext& context, std::string_view tenant, internal::v1::IdentityKind kind, int change);
Status not_found(internal::v1::IdentityKind kind, const std::string& name);

// Remembers for `ttl_ms` (0: for ever) that something is worthless.
void put_revocation(machine::ApplyContext& context, std::string_view tenant, const std::string& key,
                    const std::string& reason, int64_t ttl_ms);

std::string owned_key(std::string_view user, std::string_view id);
void erase_api_key(machine::ApplyContext& context, const internal::v1::ApiKeyRow& row);
void erase_session(machine::ApplyContext& context, const internal::v1::SessionRow& row, bool lease_is_over = false);
// All of a user.
void erase_api_keys(machine::ApplyContext& context, std::string_view tenant, std::string_view user);
void erase_sessions(machine::ApplyContext& context, std::string_view tenant, std::string_view user);

}  // namespace uccp::identity
