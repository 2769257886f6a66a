// Keys that verify access tokens, each pinned to one algorithm: EdDSA (Ed25519), ES256 (P-256) or RS256 (RSA of at
// least 2048 bits), all public; and HS256 with a secret, which whoever checks could also sign with. A key set never has
// one of these: it is made from a file that an operator names for one issuer (RFC 8725, 2.1).
//
// Immutable; callable from any thread.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"

struct evp_pkey_st;

namespace uccp::runtime {

class TokenKey {
 public:
  // Errors: corruption PEM_INVALID, also for keys of another kind.
  static Result<TokenKey> from_public_pem(std::string_view pem);

  // HS256. Errors: invalid KEY_TOO_SHORT for less than 32 bytes (RFC 7518, 3.2).
  static Result<TokenKey> from_secret(std::string secret);

  std::string_view algorithm() const { return algorithm_; }
  bool verifies(std::string_view message, std::string_view signature) const;

 private:
  friend Result<std::map<std::string, TokenKey, std::less<>>> parse_jwks(const std::string& json);
  static Result<TokenKey> from_key(std::shared_ptr<evp_pkey_st> key);

  std::shared_ptr<evp_pkey_st> key_;
  std::string secret_;  // of HS256
  std::string_view algorithm_;
};

// The keys of a JSON Web Key Set (RFC 7517) by their ids. Those of other kinds, for other uses, without an id, or whose
// `alg` is not the one that is pinned to their kind are left out. Errors: invalid JWKS_INVALID.
Result<std::map<std::string, TokenKey, std::less<>>> parse_jwks(const std::string& json);

struct JwkParts {
  std::string kty, crv, x, kid, alg;
};
// Of an Ed25519 key: what a key set shows. Errors: corruption PEM_INVALID.
Result<JwkParts> ed25519_jwk(std::string_view public_pem);

}  // namespace uccp::runtime
