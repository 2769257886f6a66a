#include "runtime/jwt.h"

#include <openssl/evp.h>
#include <simdjson.h>

#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/hash.h"
#include "base/json.h"
#include "runtime/openssl_types.h"
#include "runtime/tls.h"

namespace uccp::runtime {
namespace {

constexpr auto kAlgorithms = std::to_array<std::string_view>({"EdDSA", "ES256", "RS256"});
constexpr size_t kKeyIdBytes = 16;
constexpr size_t kKeyIdBytesMax = 256;
constexpr size_t kSignatureBytes = 64;
// Seconds up to the year 9999; what is beyond is a mistake of units, and additions below cannot overflow.
constexpr int64_t kTimeMaxS = 253'402'300'799;

std::unexpected<Status> refused(std::string_view reason, std::string message) {
  return fail(Code::kUnauthenticated, reason, "access token refused: " + message);
}
std::unexpected<Status> malformed(std::string_view what) { return refused("TOKEN_MALFORMED", std::string(what)); }

std::string key_id_of(EVP_PKEY* key) {
  std::array<unsigned char, 32> raw{};
  size_t size = raw.size();
  UCCP_CHECK(EVP_PKEY_get_raw_public_key(key, raw.data(), &size) == 1, "an Ed25519 key has a raw form");
  return to_base64url(sha256({reinterpret_cast<char*>(raw.data()), size}).substr(0, kKeyIdBytes));
}

Status require_ed25519(EVP_PKEY* key) {
  if (EVP_PKEY_get_id(key) == EVP_PKEY_ED25519) return Status::ok();
  return Status(Code::kCorruption, "PEM_INVALID", "a token key has to be an Ed25519 key");
}

// The bytes of a part, if they were encoded in the one canonical way.
std::optional<std::string> decode_part(std::string_view part) {
  Result<std::string> bytes = from_base64(part);
  if (!bytes || to_base64url(*bytes) != part) return std::nullopt;
  return std::move(*bytes);
}

// True if no object at any depth names a key twice. The parser has limited the depth.
bool has_unique_keys(simdjson::dom::element value) {
  if (simdjson::dom::array array; value.get(array) == simdjson::SUCCESS) {
    return std::ranges::all_of(array, [](simdjson::dom::element item) { return has_unique_keys(item); });
  }
  simdjson::dom::object object;
  if (value.get(object) != simdjson::SUCCESS) return true;
  std::set<std::string_view> seen;
  for (const simdjson::dom::key_value_pair& field : object) {
    if (!seen.insert(field.key).second || !has_unique_keys(field.value)) return false;
  }
  return true;
}

// Reads the fields of one JSON object; the first of a wrong type makes it fail for good.
class ObjectReader {
 public:
  explicit ObjectReader(const std::string& json) {
    simdjson::dom::element root;
    ok_ = parser_.allocate(kTokenBytesMax, 16) == simdjson::SUCCESS &&
          parser_.parse(json).get(root) == simdjson::SUCCESS && root.get(object_) == simdjson::SUCCESS &&
          has_unique_keys(root);
  }

  bool ok() const { return ok_; }

  bool has(std::string_view key) {
    simdjson::dom::element value;
    return ok_ && object_.at_key(key).get(value) == simdjson::SUCCESS;
  }

  std::string text(std::string_view key) {
    if (!has(key)) return {};
    std::string_view value;
    if (object_.at_key(key).get(value) != simdjson::SUCCESS) ok_ = false;
    return std::string(value);
  }

  int64_t seconds(std::string_view key) {
    if (!has(key)) return 0;
    int64_t value = 0;
    if (object_.at_key(key).get(value) != simdjson::SUCCESS || value <= 0 || value > kTimeMaxS) ok_ = false;
    return value;
  }

  std::vector<std::string> texts(std::string_view key) {
    std::vector<std::string> out;
    if (!has(key)) return out;
    simdjson::dom::array values;
    if (object_.at_key(key).get(values) != simdjson::SUCCESS) {
      ok_ = false;
      return out;
    }
    for (const simdjson::dom::element item : values) {
      std::string_view value;
      if (item.get(value) != simdjson::SUCCESS) ok_ = false;
      out.emplace_back(value);
    }
    return out;
  }

  // A string or an array of strings (RFC 7519, 4.1.3).
  std::vector<std::string> audience() {
    std::string_view one;
    if (has("aud") && object_.at_key("aud").get(one) == simdjson::SUCCESS) return {std::string(one)};
    return texts("aud");
  }

 private:
  simdjson::dom::parser parser_{kTokenBytesMax};
  simdjson::dom::object object_;
  bool ok_ = false;
};

void write_texts(JsonWriter& json, std::string_view key, const std::vector<std::string>& values) {
  if (values.empty()) return;
  json.key(key).begin_array();
  for (const std::string& value : values) json.value(value);
  json.end_array();
}

std::string to_json(const TokenClaims& claims) {
  JsonWriter json;
  json.begin_object();
  json.key("iss").value(claims.issuer).key("sub").value(claims.subject);
  if (claims.audience.size() == 1) {
    json.key("aud").value(claims.audience.front());
  } else {
    write_texts(json, "aud", claims.audience);
  }
  if (!claims.tenant.empty()) json.key("tenant").value(claims.tenant);
  write_texts(json, "roles", claims.roles);
  write_texts(json, "namespaces", claims.namespaces);
  json.key("exp").value(claims.expires_at_s);
  if (claims.not_before_s != 0) json.key("nbf").value(claims.not_before_s);
  if (claims.issued_at_s != 0) json.key("iat").value(claims.issued_at_s);
  if (!claims.token_id.empty()) json.key("jti").value(claims.token_id);
  if (!claims.session.empty()) json.key("sid").value(claims.session);
  json.end_object();
  return json.take();
}

Result<TokenClaims> read_foreign_claims(const std::string& json, const TokenExpectation& expectation) {
  ObjectReader reader(json);
  TokenClaims claims{.issuer = reader.text("iss"),
                     .subject = reader.text(expectation.subject_claim),
                     .audience = reader.audience(),
                     .expires_at_s = reader.seconds("exp"),
                     .not_before_s = reader.seconds("nbf"),
                     .issued_at_s = reader.seconds("iat"),
                     .token_id = reader.text("jti"),
                     .groups = reader.texts(expectation.groups_claim)};
  if (!reader.ok()) return malformed("its claims are not what they should be");
  if (claims.expires_at_s == 0 || claims.subject.empty()) {
    return malformed("it has no exp or no " + expectation.subject_claim);
  }
  return claims;
}

Result<TokenClaims> read_claims(const std::string& json, const TokenExpectation& expectation) {
  if (expectation.foreign) return read_foreign_claims(json, expectation);
  ObjectReader reader(json);
  TokenClaims claims{.issuer = reader.text("iss"),
                     .subject = reader.text("sub"),
                     .audience = reader.audience(),
                     .tenant = reader.text("tenant"),
                     .roles = reader.texts("roles"),
                     .namespaces = reader.texts("namespaces"),
                     .expires_at_s = reader.seconds("exp"),
                     .not_before_s = reader.seconds("nbf"),
                     .issued_at_s = reader.seconds("iat"),
                     .token_id = reader.text("jti"),
                     .session = reader.text("sid")};
  if (!reader.ok()) return malformed("its claims are not what they should be");
  if (claims.expires_at_s == 0 || claims.subject.empty()) return malformed("it has no exp or no sub");
  return claims;
}

}  // namespace

Result<std::string> TokenSigner::generate_key_pem() {
  const openssl::Key key(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
  if (!key) return fail(Code::kInternal, "OPENSSL_FAILED", "cannot make a token key: " + take_openssl_errors());
  return openssl::private_key_to_pem(key.get());
}

Result<TokenSigner> TokenSigner::from_pem(std::string_view key_pem) {
  UCCP_TRY(openssl::Key key, openssl::parse_private_key(key_pem));
  UCCP_RETURN_IF_ERROR(require_ed25519(key.get()));
  TokenSigner signer;
  signer.key_id_ = key_id_of(key.get());
  signer.public_key_pem_ = openssl::public_key_to_pem(key.get());
  signer.key_ = std::move(key);
  return signer;
}

Result<std::string> TokenSigner::sign(const TokenClaims& claims) const {
  UCCP_CHECK(!claims.issuer.empty() && !claims.subject.empty() && !claims.audience.empty() && claims.expires_at_s > 0,
             "a token says who issued it, for whom, to whom and until when");
  JsonWriter header;
  header.begin_object().key("alg").value("EdDSA").key("typ").value("JWT").key("kid").value(key_id_).end_object();
  std::string token = to_base64url(header.data()) + "." + to_base64url(to_json(claims));

  std::string signature(kSignatureBytes, '\0');
  size_t size = signature.size();
  const openssl::DigestContext context(EVP_MD_CTX_new());
  if (!context || EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, key_.get()) != 1 ||
      EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &size,
                     reinterpret_cast<const unsigned char*>(token.data()), token.size()) != 1) {
    return fail(Code::kInternal, "OPENSSL_FAILED", "cannot sign a token: " + take_openssl_errors());
  }
  token += "." + to_base64url(signature);
  if (token.size() > kTokenBytesMax) {
    return fail(Code::kInvalid, "TOKEN_TOO_LARGE",
                "the token would have " + std::to_string(token.size()) + " bytes, at most " +
                    std::to_string(kTokenBytesMax) + " are accepted; name fewer roles or namespaces");
  }
  return token;
}

Status TokenVerifier::add_key(std::string_view public_key_pem) {
  UCCP_TRY(openssl::Key key, openssl::parse_public_key(public_key_pem));
  UCCP_RETURN_IF_ERROR(require_ed25519(key.get()));
  std::string id = key_id_of(key.get());
  UCCP_TRY(TokenKey trusted, TokenKey::from_public_pem(public_key_pem));
  keys_.insert_or_assign(std::move(id), std::move(trusted));
  return Status::ok();
}

Result<TokenClaims> TokenVerifier::verify(std::string_view token, WallTime now) const {
  if (token.size() > kTokenBytesMax) return malformed("it is larger than 8 KiB");
  const size_t first = token.find('.');
  const size_t second = first == token.npos ? token.npos : token.find('.', first + 1);
  if (second == token.npos || token.find('.', second + 1) != token.npos) return malformed("it has not three parts");
  const auto header_json = decode_part(token.substr(0, first));
  const auto claims_json = decode_part(token.substr(first + 1, second - first - 1));
  const auto signature = decode_part(token.substr(second + 1));
  if (!header_json || !claims_json || !signature) return malformed("a part is not canonical base64url");

  ObjectReader header(*header_json);
  const std::string algorithm = header.text("alg");
  const std::string key_id = header.text("kid");
  if (!header.ok()) return malformed("its header is not what it should be");
  const bool known_algorithm =
      only_key_ ? only_key_->algorithm() == algorithm : std::ranges::find(kAlgorithms, algorithm) != kAlgorithms.end();
  if (!known_algorithm) {
    return refused("TOKEN_ALGORITHM", "its algorithm is none that is accepted for this issuer");
  }
  if (header.has("crit")) return malformed("it demands extensions");
  std::optional<TokenKey> key;
  if (only_key_) key = only_key_;
  else if (const auto known = keys_.find(key_id); known != keys_.end()) key = known->second;
  else if (source_ && !key_id.empty() && key_id.size() <= kKeyIdBytesMax) key = source_(key_id);
  if (!key) return refused("TOKEN_SIGNATURE", "its key is not known here");
  // The algorithm is that of the key, whatever the token says.
  if (key->algorithm() != algorithm) return refused("TOKEN_ALGORITHM", "its key is one for another algorithm");
  if (!key->verifies(token.substr(0, second), *signature)) return refused("TOKEN_SIGNATURE", "its signature is wrong");

  UCCP_TRY(TokenClaims claims, read_claims(*claims_json, expectation_));
  if (claims.issuer != expectation_.issuer) return refused("TOKEN_ISSUER", "it was issued by somebody else");
  if (std::ranges::find(claims.audience, expectation_.audience) == claims.audience.end()) {
    return refused("TOKEN_AUDIENCE", "it was issued for another audience");
  }
  const int64_t now_s = now.us / 1'000'000;
  if (now_s >= claims.expires_at_s + expectation_.clock_skew_s) {
    return refused("TOKEN_EXPIRED", "it has expired; sign in again");
  }
  const int64_t valid_from_s = std::max(claims.not_before_s, claims.issued_at_s);
  if (now_s < valid_from_s - expectation_.clock_skew_s) {
    return refused("TOKEN_NOT_YET_VALID", "it is not valid yet; compare the clocks");
  }
  return claims;
}

UnverifiedClaims unverified_claims(std::string_view token) {
  const size_t first = token.find('.');
  const size_t second = first == token.npos ? token.npos : token.find('.', first + 1);
  if (second == token.npos || token.size() > kTokenBytesMax) return {};
  const auto json = decode_part(token.substr(first + 1, second - first - 1));
  if (!json) return {};
  ObjectReader reader(*json);
  UnverifiedClaims claims{reader.text("iss"), reader.text("jti"), reader.text("tenant")};
  return reader.ok() ? claims : UnverifiedClaims();
}

}  // namespace uccp::runtime
