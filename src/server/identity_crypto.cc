#include "server/identity_crypto.h"

#include "base/bytes.h"
#include "base/hash.h"
#include "runtime/jwt.h"
#include "runtime/password.h"
#include "server/authenticator.h"

namespace uccp::server {
namespace {

constexpr size_t kSaltBytes = 16;
constexpr uint8_t kSealVersion = 1;
constexpr std::string_view kSealPurpose = "uccp identity secrets";

}  // namespace

ClusterCrypto::ClusterCrypto(const std::string& cluster_secret, Random& random)
    : key_(*SecretKey::parse(to_hex(sha256("uccp identity " + cluster_secret)))), random_(random) {}

std::string ClusterCrypto::random_bytes(size_t size) {
  std::lock_guard lock(mutex_);
  ByteWriter out;
  while (out.data().size() < size) out.u64(random_.next());
  return out.take().substr(0, size);
}

Result<std::string> ClusterCrypto::hash_password(const std::string& password) {
  return runtime::hash_password(password, random_bytes(kSaltBytes), runtime::kPasswordCost);
}

Result<std::string> ClusterCrypto::hash_api_key(const std::string& secret) {
  return runtime::hash_password(secret, random_bytes(kSaltBytes), runtime::kApiKeyCost);
}

bool ClusterCrypto::check_password(const std::string& hash, const std::string& password) {
  return runtime::check_password(hash, password);
}

// u8 version, 16 bytes salt, cipher text and tag. A key of its own for each secret: the number is always 0.
std::string ClusterCrypto::seal(std::string_view secret, std::string_view context) {
  const std::string salt = random_bytes(kSaltBytes);
  return ByteWriter()
      .u8(kSealVersion)
      .raw(salt)
      .raw(Aead(key_.derive(salt, kSealPurpose)).seal(0, context, secret))
      .take();
}

Result<std::string> ClusterCrypto::open(std::string_view sealed, std::string_view context) {
  ByteReader in(sealed);
  const uint8_t version = in.u8();
  const std::string_view salt = in.raw(kSaltBytes);
  if (in.ok() && version == kSealVersion) {
    if (auto secret = Aead(key_.derive(salt, kSealPurpose)).open(0, context, in.rest())) return std::move(*secret);
  }
  return fail(Code::kFailedPrecondition, "SEAL_BROKEN",
              "a stored secret cannot be opened: pki/token.key is not the one that the cluster had when it was stored");
}

std::string ClusterCrypto::totp(std::string_view secret, uint64_t step) { return runtime::totp_code(secret, step); }

Result<identity::SigningKeyPair> ClusterCrypto::make_signing_key() {
  UCCP_TRY(const std::string pem, runtime::TokenSigner::generate_key_pem());
  UCCP_TRY(const auto signer, runtime::TokenSigner::from_pem(pem));
  return identity::SigningKeyPair{.key_id = signer.key_id(), .public_pem = signer.public_key_pem(), .private_pem = pem};
}

Result<std::string> ClusterCrypto::sign(const std::string& private_pem, const identity::AccessTokenClaims& claims) {
  UCCP_TRY(const auto signer, runtime::TokenSigner::from_pem(private_pem));
  runtime::TokenClaims token;
  token.issuer = std::string(kTokenIssuer);
  token.audience = {std::string(kTokenAudience)};
  token.subject = claims.principal;
  token.tenant = claims.tenant;
  token.namespaces = claims.namespaces;
  token.session = claims.session;
  token.token_id = claims.token_id;
  token.issued_at_s = claims.issued_s;
  token.expires_at_s = claims.expires_s;
  return signer.sign(token);
}

Result<identity::PublicJwk> ClusterCrypto::jwk(const std::string& public_pem) {
  UCCP_TRY(runtime::JwkParts parts, runtime::ed25519_jwk(public_pem));
  return identity::PublicJwk{.kty = parts.kty, .crv = parts.crv, .x = parts.x, .kid = parts.kid, .alg = parts.alg};
}

std::pair<std::string, std::string> ClusterCrypto::token_id(const std::string& token) {
  const auto claims = runtime::unverified_claims(token);
  return {claims.token_id, claims.tenant};
}

}  // namespace uccp::server
