// The replicated state of tenants, users, roles, bindings, policies, keys and sessions. Pure: runs on the loop, inside
// apply.
//
// Invariants: the name of a tenant is never given to another one; roles never inherit in a circle, and a role that is
// used is not removed; a refresh token is good once; no code of a second factor is taken twice; every change of what
// anybody may is announced with ChangeKind::kAuthority, everything that ends a credential with at least kCredential.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "machine/domain.h"
#include "machine/table.h"
#include "uccp/internal/v1/identity_state.pb.h"

namespace uccp::identity {

// Tables of the core group; the numbers are part of the on-disk format. Scope: that of the tenant, or none.
inline constexpr machine::Table<v1::Tenant> kTenants(160);                       // no scope; name
inline constexpr machine::Table<v1::Namespace> kNamespaces(161);                 // name
inline constexpr machine::Table<internal::v1::UserRow> kUsers(162);              // name
inline constexpr machine::Table<v1::Role> kRoles(163);                           // name
inline constexpr machine::Table<v1::Binding> kBindings(164);                     // id
inline constexpr machine::Table<v1::Policy> kPolicies(165);                      // name
inline constexpr machine::Table<internal::v1::ApiKeyRow> kApiKeys(166);          // no scope; id
inline constexpr machine::BytesTable kApiKeysOfUser(167);                        // key part user, raw id
inline constexpr machine::Table<internal::v1::SessionRow> kSessions(168);        // no scope; id
inline constexpr machine::BytesTable kSessionsOfUser(169);                       // key part user, raw id
inline constexpr machine::Table<internal::v1::SigningKeyRow> kSigningKeys(170);  // no scope; key id
inline constexpr machine::Table<internal::v1::RevocationRow> kRevocations(171);  // see below
inline constexpr machine::BytesTable kCounts(172);                               // u8 kind -> u64
inline constexpr machine::BytesTable kAuthority(173);  // no scope; empty -> u64 index of the last change of kAuthority

inline constexpr std::string_view kDomain = "identity";
inline constexpr std::string_view kTopic = "identity";
enum class ChangeKind : uint8_t {
  kAuthority = 1,   // who may what, and who is who
  kCredential = 2,  // a credential ended
  kOther = 3,
};

inline constexpr size_t kUsersMax = 100'000;      // a tenant
inline constexpr size_t kRolesMax = 1'000;        // a tenant
inline constexpr size_t kBindingsMax = 100'000;   // a tenant
inline constexpr size_t kPoliciesMax = 1'000;     // a tenant
inline constexpr size_t kNamespacesMax = 10'000;  // a tenant
inline constexpr size_t kTenantsMax = 10'000;
inline constexpr size_t kApiKeysOfUserMax = 100;
inline constexpr size_t kSessionsOfUserMax = 100;  // the oldest ends when one more begins
inline constexpr size_t kSigningKeysMax = 8;
inline constexpr size_t kRowsPerSweep = 5'000;  // rows of a removed tenant that one command erases
// Wrong attempts to sign in that cost nothing; each further one doubles the time in which none is looked at.
inline constexpr uint32_t kFreeFailures = 5;
inline constexpr int64_t kLockMinMs = 1'000;
inline constexpr int64_t kLockMaxMs = 15 * 60 * 1000;
// Longest life of a token that IssueToken makes, and a day: for so long a revocation is remembered.
inline constexpr int64_t kTokenTtlMaxMs = 366LL * 24 * 3600 * 1000;
// Life of the access tokens of a session, and for how long the end of the session is remembered.
inline constexpr int64_t kAccessTtlMs = 15 * 60 * 1000;
inline constexpr int64_t kSessionEndKeptMs = 2 * kAccessTtlMs;

machine::Scope tenant_scope(std::string_view tenant);
inline const machine::Scope kNoScope{};

// A certificate's serial number as revocations keep it: hexadecimal in lower case without leading zeros, which tools
// differ in.
std::string canonical_serial(std::string serial);

// Keys of revocations. A session is revoked like a token, by its id; a user with all it has until then.
std::string token_revocation_key(std::string_view token_id);
std::string certificate_revocation_key(std::string_view canonical_serial);
std::string user_revocation_key(std::string_view user);

class IdentityState final : public machine::Domain {
 public:
  std::string_view name() const override { return kDomain; }
  // put, delete, sweep (a DeleteIdentityCommand of a tenant), set_secret, sign_in, rotate_session, revoke,
  // add_signing_key. Each answers the row after it.
  std::map<std::string, machine::ApplyFunction, std::less<>> commands() override;
  void on_lease_expired(machine::ApplyContext& context, machine::LeaseId lease, std::string_view key) override;
};

}  // namespace uccp::identity
