// How a secret is sealed: a value with a data key made for it, the data key with a wrapping key, the wrapping key with
// the key that only the nodes have. docs/formats/secrets.md has the bytes. AES-256-GCM throughout.
//
// Callable from any thread, if `random` is. What is sealed is bound to where it belongs.
#pragma once

#include <string>
#include <string_view>

#include "base/aead.h"
#include "base/random.h"
#include "machine/envelope.h"
#include "uccp/internal/v1/secrets_state.pb.h"

namespace uccp::secrets {

inline constexpr size_t kSaltBytes = 16;

class SecretSeals {
 public:
  // `nodes_key` is the same on all nodes; `random` is the system's and must outlive this.
  SecretSeals(SecretKey nodes_key, Random& random) : nodes_key_(nodes_key), random_(random) {}

  // A new wrapping key.
  internal::v1::WrappingKeyRow make_key(WallTime now) const;
  // Errors: failed_precondition SECRET_UNREADABLE when the wrapping key is of nodes with another key.
  Result<internal::v1::SecretValueRow> seal(const internal::v1::WrappingKeyRow& key, const machine::Scope& scope,
                                            std::string_view name, std::string_view value) const;
  Result<std::string> open(const internal::v1::WrappingKeyRow& key, const machine::Scope& scope, std::string_view name,
                           const internal::v1::SecretValueRow& sealed) const;
  // The same value with its data key wrapped by `to`; of what is sealed, the tag alone.
  Result<internal::v1::SecretValueRow> rewrap(const internal::v1::WrappingKeyRow& from,
                                              const internal::v1::WrappingKeyRow& to, const machine::Scope& scope,
                                              std::string_view name, const internal::v1::SecretValueRow& sealed) const;

 private:
  std::string salt() const;
  Result<SecretKey> open_key(const internal::v1::WrappingKeyRow& row) const;
  void wrap(internal::v1::SecretValueRow& row, const SecretKey& wrapping, const std::string& key_id,
            std::string_view bound, const SecretKey& data_key) const;

  const SecretKey nodes_key_;
  Random& random_;
};

}  // namespace uccp::secrets
