// Secrets in the replicated state: sealed values, wrapped data keys, sealed wrapping keys. Pure; knows no key.
//
// Invariants: at most one wrapping key is not retired, and only it wraps what is new; each key that wraps something is
// in the state; the newest version of a secret is always kept.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "machine/domain.h"
#include "machine/table.h"
#include "uccp/internal/v1/secrets_state.pb.h"

namespace uccp::secrets {

inline constexpr std::string_view kDomain = "secrets";
// Result of put, add_key and rewrap where the key is not the one in force, or there is one already. Nothing was done.
inline constexpr std::string_view kKeyChanged = "SECRET_KEY_CHANGED";

// Tables of the group core; the numbers are part of the on-disk format.
inline constexpr machine::TableId kSecretTable = 248;       // name: SecretRow
inline constexpr machine::TableId kSecretCountTable = 249;  // "secrets": u64
inline constexpr machine::TableId kWrappingKeyTable = 250;  // id: WrappingKeyRow, of the cluster
inline constexpr machine::TableId kKeyUseTable = 251;       // id: u64 data keys that it wraps, of the cluster

inline constexpr machine::Table<internal::v1::SecretRow> kSecrets{kSecretTable};
inline constexpr machine::BytesTable kSecretCounts{kSecretCountTable};
inline constexpr machine::Table<internal::v1::WrappingKeyRow> kWrappingKeys{kWrappingKeyTable};
inline constexpr machine::BytesTable kKeyUses{kKeyUseTable};

class SecretsState final : public machine::Domain {
 public:
  std::string_view name() const override { return kDomain; }
  // As secrets_state.proto says.
  std::map<std::string, machine::ApplyFunction, std::less<>> commands() override;
};

// The wrapping key in force; none: nothing was ever stored.
std::optional<internal::v1::WrappingKeyRow> key_in_force(const machine::KeyReader& state);
Status secret_not_found(std::string_view name);

}  // namespace uccp::secrets
