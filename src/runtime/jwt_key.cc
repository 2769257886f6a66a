#include "runtime/jwt_key.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/param_build.h>
#include <simdjson.h>

#include <array>

#include "base/bytes.h"
#include "base/hash.h"
#include "runtime/openssl_types.h"
#include "runtime/tls.h"

namespace uccp::runtime {
namespace {

constexpr size_t kEs256SignatureBytes = 64;
constexpr size_t kKeysMax = 100;
constexpr size_t kSecretBytesMin = 32;
constexpr int kRsaBitsMin = 2048;
constexpr int kRsaBitsMax = 8192;

using Params = std::unique_ptr<OSSL_PARAM, openssl::Free<OSSL_PARAM_free>>;
using ParamBuilder = std::unique_ptr<OSSL_PARAM_BLD, openssl::Free<OSSL_PARAM_BLD_free>>;

const unsigned char* bytes_of(std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); }

// r and s one after the other, as RFC 7518 has them, to the DER form that OpenSSL takes.
std::string to_der(std::string_view signature) {
  const std::unique_ptr<ECDSA_SIG, openssl::Free<ECDSA_SIG_free>> sig(ECDSA_SIG_new());
  BIGNUM* r = BN_bin2bn(bytes_of(signature), 32, nullptr);
  BIGNUM* s = BN_bin2bn(bytes_of(signature) + 32, 32, nullptr);
  if (!sig || r == nullptr || s == nullptr || ECDSA_SIG_set0(sig.get(), r, s) != 1) return {};
  unsigned char* der = nullptr;
  const int size = i2d_ECDSA_SIG(sig.get(), &der);
  if (size <= 0) return {};
  std::string out(reinterpret_cast<char*>(der), static_cast<size_t>(size));
  OPENSSL_free(der);
  return out;
}

std::shared_ptr<EVP_PKEY> key_from(const char* type, OSSL_PARAM_BLD* builder) {
  const Params params(OSSL_PARAM_BLD_to_param(builder));
  const openssl::KeyContext context(EVP_PKEY_CTX_new_from_name(nullptr, type, nullptr));
  EVP_PKEY* key = nullptr;
  if (!params || !context || EVP_PKEY_fromdata_init(context.get()) != 1 ||
      EVP_PKEY_fromdata(context.get(), &key, EVP_PKEY_PUBLIC_KEY, params.get()) != 1) {
    take_openssl_errors();
    return nullptr;
  }
  std::shared_ptr<EVP_PKEY> owned(key, EVP_PKEY_free);
  // A point that is not on the curve, a modulus that is none.
  const openssl::KeyContext check(EVP_PKEY_CTX_new(key, nullptr));
  if (!check || EVP_PKEY_public_check(check.get()) != 1) {
    take_openssl_errors();
    return nullptr;
  }
  return owned;
}

std::shared_ptr<EVP_PKEY> rsa_key(const std::string& n, const std::string& e) {
  const openssl::BigNumber modulus(BN_bin2bn(bytes_of(n), static_cast<int>(n.size()), nullptr));
  const openssl::BigNumber exponent(BN_bin2bn(bytes_of(e), static_cast<int>(e.size()), nullptr));
  const ParamBuilder builder(OSSL_PARAM_BLD_new());
  if (!modulus || !exponent || !builder || n.size() > kRsaBitsMax / 8 + 1 || e.size() > 8 ||
      OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_N, modulus.get()) != 1 ||
      OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_E, exponent.get()) != 1) {
    return nullptr;
  }
  return key_from("RSA", builder.get());
}

std::shared_ptr<EVP_PKEY> p256_key(const std::string& x, const std::string& y) {
  const ParamBuilder builder(OSSL_PARAM_BLD_new());
  const std::string point = "\x04" + x + y;
  if (x.size() != 32 || y.size() != 32 || !builder ||
      OSSL_PARAM_BLD_push_utf8_string(builder.get(), OSSL_PKEY_PARAM_GROUP_NAME, "prime256v1", 0) != 1 ||
      OSSL_PARAM_BLD_push_octet_string(builder.get(), OSSL_PKEY_PARAM_PUB_KEY, point.data(), point.size()) != 1) {
    return nullptr;
  }
  return key_from("EC", builder.get());
}

std::shared_ptr<EVP_PKEY> ed25519_key(const std::string& x) {
  if (x.size() != 32) return nullptr;
  return {EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, bytes_of(x), x.size()), EVP_PKEY_free};
}

std::string text_of(simdjson::dom::object object, std::string_view name) {
  std::string_view value;
  return object.at_key(name).get(value) == simdjson::SUCCESS ? std::string(value) : "";
}
std::string part_of(simdjson::dom::object object, std::string_view name) {
  return from_base64(text_of(object, name)).value_or("");
}

std::shared_ptr<EVP_PKEY> key_of(simdjson::dom::object jwk) {
  const std::string type = text_of(jwk, "kty");
  const std::string curve = text_of(jwk, "crv");
  if (type == "RSA") return rsa_key(part_of(jwk, "n"), part_of(jwk, "e"));
  if (type == "EC" && curve == "P-256") return p256_key(part_of(jwk, "x"), part_of(jwk, "y"));
  if (type == "OKP" && curve == "Ed25519") return ed25519_key(part_of(jwk, "x"));
  return nullptr;
}

}  // namespace

Result<TokenKey> TokenKey::from_key(std::shared_ptr<EVP_PKEY> key) {
  TokenKey out;
  const int kind = key ? EVP_PKEY_get_base_id(key.get()) : EVP_PKEY_NONE;
  if (kind == EVP_PKEY_ED25519) out.algorithm_ = "EdDSA";
  if (kind == EVP_PKEY_EC && EVP_PKEY_get_bits(key.get()) == 256) {
    std::array<char, 64> group{};
    size_t size = 0;
    if (EVP_PKEY_get_group_name(key.get(), group.data(), group.size(), &size) == 1 &&
        std::string_view(group.data(), size) == "prime256v1") {
      out.algorithm_ = "ES256";
    }
  }
  if (kind == EVP_PKEY_RSA && EVP_PKEY_get_bits(key.get()) >= kRsaBitsMin) out.algorithm_ = "RS256";
  if (out.algorithm_.empty()) {
    return fail(Code::kCorruption, "PEM_INVALID", "a token key is Ed25519, P-256, or RSA of at least 2048 bits");
  }
  out.key_ = std::move(key);
  return out;
}

Result<TokenKey> TokenKey::from_public_pem(std::string_view pem) {
  UCCP_TRY(openssl::Key key, openssl::parse_public_key(pem));
  return from_key(std::shared_ptr<EVP_PKEY>(std::move(key)));
}

Result<TokenKey> TokenKey::from_secret(std::string secret) {
  if (secret.size() < kSecretBytesMin) {
    return fail(Code::kInvalid, "KEY_TOO_SHORT",
                "a secret for HS256 has at least 32 bytes; make one with: openssl rand -hex 32");
  }
  TokenKey out;
  out.secret_ = std::move(secret);
  out.algorithm_ = "HS256";
  return out;
}

bool TokenKey::verifies(std::string_view message, std::string_view signature) const {
  if (algorithm_ == "HS256") {
    std::array<unsigned char, 32> mac{};
    unsigned size = 0;
    const bool made = HMAC(EVP_sha256(), secret_.data(), static_cast<int>(secret_.size()), bytes_of(message),
                           message.size(), mac.data(), &size) != nullptr;
    return made && signature.size() == mac.size() && CRYPTO_memcmp(mac.data(), signature.data(), mac.size()) == 0;
  }
  std::string der;
  if (algorithm_ == "ES256") {
    if (signature.size() != kEs256SignatureBytes) return false;
    der = to_der(signature);
    signature = der;
  }
  const openssl::DigestContext context(EVP_MD_CTX_new());
  const EVP_MD* digest = algorithm_ == "EdDSA" ? nullptr : EVP_sha256();
  const bool good =
      context && EVP_DigestVerifyInit(context.get(), nullptr, digest, nullptr, key_.get()) == 1 &&
      EVP_DigestVerify(context.get(), bytes_of(signature), signature.size(), bytes_of(message), message.size()) == 1;
  if (!good) take_openssl_errors();
  return good;
}

Result<std::map<std::string, TokenKey, std::less<>>> parse_jwks(const std::string& json) {
  simdjson::dom::parser parser;
  simdjson::dom::array keys;
  if (parser.parse(json)["keys"].get(keys) != simdjson::SUCCESS) {
    return fail(Code::kInvalid, "JWKS_INVALID", "the key set is not a JSON object with a list `keys`");
  }
  std::map<std::string, TokenKey, std::less<>> out;
  for (const simdjson::dom::element element : keys) {
    simdjson::dom::object jwk;
    if (out.size() >= kKeysMax || element.get(jwk) != simdjson::SUCCESS) continue;
    const std::string id = text_of(jwk, "kid");
    const std::string use = text_of(jwk, "use");
    if (id.empty() || (!use.empty() && use != "sig")) continue;
    auto key = TokenKey::from_key(key_of(jwk));
    const std::string algorithm = text_of(jwk, "alg");
    if (!key || (!algorithm.empty() && algorithm != key->algorithm())) continue;
    out.insert_or_assign(id, std::move(*key));
  }
  return out;
}

Result<JwkParts> ed25519_jwk(std::string_view public_pem) {
  UCCP_TRY(openssl::Key key, openssl::parse_public_key(public_pem));
  std::array<unsigned char, 32> raw{};
  size_t size = raw.size();
  if (EVP_PKEY_get_raw_public_key(key.get(), raw.data(), &size) != 1) {
    return fail(Code::kCorruption, "PEM_INVALID", "the signing key is no Ed25519 key: " + take_openssl_errors());
  }
  const std::string_view bytes(reinterpret_cast<char*>(raw.data()), size);
  return JwkParts{.kty = "OKP",
                  .crv = "Ed25519",
                  .x = to_base64url(bytes),
                  .kid = to_base64url(sha256(bytes).substr(0, 16)),
                  .alg = "EdDSA"};
}

}  // namespace uccp::runtime
