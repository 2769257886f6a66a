// What identity needs of cryptography. The composition root implements it with OpenSSL and Argon2.
//
// Callable from any thread. hash_password() and check_password() burn tens of milliseconds and megabytes on purpose:
// they belong on an executor of their own.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace uccp::identity {

struct SigningKeyPair {
  std::string key_id, public_pem, private_pem;
};

struct AccessTokenClaims {
  std::string token_id, tenant, principal, session;
  std::vector<std::string> namespaces;
  int64_t issued_s = 0, expires_s = 0;
};

struct PublicJwk {
  std::string kty, crv, x, kid, alg;
};

class IdentityCrypto {
 public:
  virtual ~IdentityCrypto() = default;
  virtual Result<std::string> hash_password(const std::string& password) = 0;
  // Also of what hash_api_key() made.
  virtual bool check_password(const std::string& hash, const std::string& password) = 0;
  // The same hash at a lower price, for secrets of 32 random bytes: about a millisecond.
  virtual Result<std::string> hash_api_key(const std::string& secret) = 0;
  // Authenticated encryption with a key that the nodes of the cluster share. `context` must be the same again.
  virtual std::string seal(std::string_view secret, std::string_view context) = 0;
  virtual Result<std::string> open(std::string_view sealed, std::string_view context) = 0;
  // `size` bytes that nobody can guess.
  virtual std::string random_bytes(size_t size) = 0;
  // Six digits for a secret and a time step of 30 seconds (RFC 6238).
  virtual std::string totp(std::string_view secret, uint64_t step) = 0;
  virtual Result<SigningKeyPair> make_signing_key() = 0;
  virtual Result<std::string> sign(const std::string& private_pem, const AccessTokenClaims& claims) = 0;
  virtual Result<PublicJwk> jwk(const std::string& public_pem) = 0;
  // Id and tenant that a token names, unchecked; empty if it is none of ours.
  virtual std::pair<std::string, std::string> token_id(const std::string& token) = 0;
};

}  // namespace uccp::identity
