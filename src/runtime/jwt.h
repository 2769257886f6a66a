// Access tokens: compact JWTs (RFC 7519). Ours are signed with Ed25519 (RFC 8037); those of outside issuers may be
// signed with ES256 or RS256, and with HS256 where an operator has turned it on.
//
// Invariants: kid must name a known key, exactly, and alg must be the algorithm that is pinned to that key; a header
// with "crit", a duplicate JSON key, a non-canonical base64url part or more than 8 KiB is refused; exp is required.
// Every refusal has code unauthenticated and says nothing about the key. Thread: signing and verifying are callable
// from any thread; add_key() before the verifier is shared.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "runtime/jwt_key.h"

struct evp_pkey_st;

namespace uccp::runtime {

inline constexpr size_t kTokenBytesMax = 8 << 10;
inline constexpr int64_t kTokenClockSkewSeconds = 30;

// Times are seconds since 1970-01-01 UTC; 0 is "not given".
struct TokenClaims {
  std::string issuer;
  std::string subject;
  std::vector<std::string> audience;
  std::string tenant;
  std::vector<std::string> roles;
  std::vector<std::string> namespaces;
  int64_t expires_at_s = 0;
  int64_t not_before_s = 0;
  int64_t issued_at_s = 0;
  std::string token_id;
  std::string session;              // claim "sid"
  std::vector<std::string> groups;  // of outside issuers

  bool operator==(const TokenClaims&) const = default;
};

class TokenSigner {
 public:
  // A new Ed25519 private key, PEM.
  static Result<std::string> generate_key_pem();
  // Errors: corruption PEM_INVALID, also for keys of another kind.
  static Result<TokenSigner> from_pem(std::string_view key_pem);

  // Requires: issuer, subject, an audience and expires_at_s are set. Errors: invalid TOKEN_TOO_LARGE.
  Result<std::string> sign(const TokenClaims& claims) const;
  // First 16 bytes of the SHA-256 of the public key, as base64url.
  const std::string& key_id() const { return key_id_; }
  const std::string& public_key_pem() const { return public_key_pem_; }

 private:
  TokenSigner() = default;
  std::shared_ptr<evp_pkey_st> key_;
  std::string key_id_;
  std::string public_key_pem_;
};

struct TokenExpectation {
  std::string issuer;
  std::string audience;
  int64_t clock_skew_s = kTokenClockSkewSeconds;
  // Of an outside issuer: tenant, roles and namespaces are not for it to say, and claims have other names.
  bool foreign = false;
  std::string subject_claim = "sub";
  std::string groups_claim = "groups";
};

class TokenVerifier {
 public:
  explicit TokenVerifier(TokenExpectation expectation) : expectation_(std::move(expectation)) {}

  // Trusts a further Ed25519 key; several are trusted during a rotation. Errors: corruption PEM_INVALID.
  Status add_key(std::string_view public_key_pem);
  // Asked for keys that were not added.
  using KeySource = std::function<std::optional<TokenKey>(std::string_view key_id)>;
  void set_key_source(KeySource source) { source_ = std::move(source); }
  // The one key of an issuer whose tokens need not name it. Without it no HS256 is taken.
  void set_only_key(TokenKey key) { only_key_ = std::move(key); }
  // The claims of a token that is valid at `now`. Errors, all unauthenticated: TOKEN_MALFORMED, TOKEN_ALGORITHM,
  // TOKEN_SIGNATURE (also for an unknown key), TOKEN_EXPIRED, TOKEN_NOT_YET_VALID, TOKEN_AUDIENCE, TOKEN_ISSUER.
  Result<TokenClaims> verify(std::string_view token, WallTime now) const;

 private:
  TokenExpectation expectation_;
  std::map<std::string, TokenKey, std::less<>> keys_;
  KeySource source_;
  std::optional<TokenKey> only_key_;
};

// Claims that nobody has checked: only to find out who should. Empty if the token is malformed.
struct UnverifiedClaims {
  std::string issuer, token_id, tenant;
};
UnverifiedClaims unverified_claims(std::string_view token);

}  // namespace uccp::runtime
