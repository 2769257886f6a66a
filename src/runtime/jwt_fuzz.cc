// Tokens and key sets: any text, and any header and claims under a good signature. What is accepted keeps what the
// verifier promises.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/check.h"
#include "runtime/jwt.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

namespace {

using namespace uccp;
using runtime::TokenExpectation;

const std::string kSecret(32, 's');
constexpr WallTime kNow{1'000'000'000'000'000};

std::string base64url(std::string_view bytes) {
  static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t word = 0;
    const size_t have = std::min<size_t>(3, bytes.size() - i);
    for (size_t k = 0; k < 3; ++k) word = word << 8 | (k < have ? static_cast<uint8_t>(bytes[i + k]) : 0);
    for (size_t k = 0; k <= have; ++k) out.push_back(kDigits[word >> (18 - 6 * k) & 63]);
  }
  return out;
}

std::string hs256(std::string_view head, std::string_view claims) {
  const std::string message = base64url(head) + "." + base64url(claims);
  unsigned char mac[32];
  unsigned size = 0;
  HMAC(EVP_sha256(), kSecret.data(), static_cast<int>(kSecret.size()),
       reinterpret_cast<const unsigned char*>(message.data()), message.size(), mac, &size);
  return message + "." + base64url({reinterpret_cast<const char*>(mac), size});
}

runtime::TokenVerifier verifier(bool foreign) {
  TokenExpectation expectation;
  expectation.issuer = "i";
  expectation.audience = "a";
  expectation.foreign = foreign;
  runtime::TokenVerifier out(expectation);
  out.set_only_key(*runtime::TokenKey::from_secret(kSecret));
  return out;
}

void check(const Result<runtime::TokenClaims>& claims, bool foreign) {
  if (!claims) {
    UCCP_CHECK(claims.error().code() == Code::kUnauthenticated, "every refusal has one code");
    return;
  }
  UCCP_CHECK(claims->issuer == "i" && !claims->subject.empty(), "issuer and subject are known");
  UCCP_CHECK(claims->expires_at_s + runtime::kTokenClockSkewSeconds >= kNow.us / 1'000'000, "it has not expired");
  UCCP_CHECK(!foreign || (claims->tenant.empty() && claims->roles.empty() && claims->namespaces.empty()),
             "an outside issuer gives no roles");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const runtime::TokenVerifier own = verifier(false), foreign = verifier(true);
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  UCCP_CHECK(!own.verify(text, kNow), "nobody guesses a signature");
  (void)runtime::unverified_claims(text);
  if (auto keys = runtime::parse_jwks(std::string(text))) {
    for (const auto& [id, key] : *keys)
      UCCP_CHECK(key.algorithm() != "HS256" && !id.empty(), "a key set has public keys only");
  }
  (void)runtime::TokenKey::from_public_pem(text);
  // The first line is the header, the rest the claims.
  const size_t line = std::min(text.find('\n'), text.size());
  const std::string_view claims = text.substr(std::min(line + 1, text.size()));
  for (const std::string_view head : {text.substr(0, line), std::string_view(R"({"alg":"HS256"})")}) {
    const std::string token = hs256(head, claims);
    check(own.verify(token, kNow), false);
    check(foreign.verify(token, kNow), true);
  }
  return 0;
}
