#include "runtime/jwt.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>

#include "base/bytes.h"
#include "runtime/openssl_types.h"

namespace uccp::runtime {
namespace {

constexpr int64_t kNowS = 1'700'000'000;

class JwtTest : public ::testing::Test {
 protected:
  JwtTest() {
    EXPECT_TRUE(verifier.add_key(signer.public_key_pem()).is_ok());
    claims = {.issuer = "https://issuer",
              .subject = "alice",
              .audience = {"uccp"},
              .tenant = "acme",
              .roles = {"operator"},
              .namespaces = {"dev", "prod"},
              .expires_at_s = kNowS + 600,
              .not_before_s = kNowS,
              .issued_at_s = kNowS,
              .token_id = "t1"};
  }

  std::string reason(std::string_view token, int64_t now_s = kNowS) {
    const auto verified = verifier.verify(token, {now_s * 1'000'000});
    if (verified) return "OK";
    EXPECT_EQ(verified.error().code(), Code::kUnauthenticated);
    return std::string(verified.error().reason());
  }

  // A token with any header and claims, signed with the right key.
  std::string forge(std::string_view header, std::string_view payload) {
    const std::string message = to_base64url(header) + "." + to_base64url(payload);
    const openssl::Key key = openssl::parse_private_key(key_pem).value();
    const openssl::DigestContext context(EVP_MD_CTX_new());
    std::string signature(64, '\0');
    size_t size = signature.size();
    EXPECT_EQ(EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, key.get()), 1);
    EXPECT_EQ(EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &size,
                             reinterpret_cast<const unsigned char*>(message.data()), message.size()),
              1);
    return message + "." + to_base64url(signature);
  }
  std::string header() { return R"({"alg":"EdDSA","kid":")" + signer.key_id() + "\"}"; }
  static std::string payload(const std::string& more = "") {
    return R"({"iss":"https://issuer","sub":"a","aud":"uccp","exp":1700000600)" + more + "}";
  }

  std::string key_pem = TokenSigner::generate_key_pem().value();
  TokenSigner signer = TokenSigner::from_pem(key_pem).value();
  TokenVerifier verifier{{.issuer = "https://issuer", .audience = "uccp"}};
  TokenClaims claims;
};

TEST_F(JwtTest, ASignedTokenGivesItsClaimsBack) {
  const std::string token = signer.sign(claims).value();
  const auto verified = verifier.verify(token, {kNowS * 1'000'000});
  ASSERT_TRUE(verified) << verified.error().to_string();
  EXPECT_EQ(*verified, claims);
  claims.audience = {"other", "uccp"};
  EXPECT_EQ(reason(signer.sign(claims).value()), "OK");
}

TEST_F(JwtTest, TimesHoldWithThirtySecondsOfSkew) {
  const std::string token = signer.sign(claims).value();
  EXPECT_EQ(reason(token, kNowS + 629), "OK");
  EXPECT_EQ(reason(token, kNowS + 630), "TOKEN_EXPIRED");
  EXPECT_EQ(reason(token, kNowS - 30), "OK");
  EXPECT_EQ(reason(token, kNowS - 31), "TOKEN_NOT_YET_VALID");
}

TEST_F(JwtTest, AnotherIssuerOrAudienceIsRefused) {
  TokenClaims other = claims;
  other.issuer = "https://else";
  EXPECT_EQ(reason(signer.sign(other).value()), "TOKEN_ISSUER");
  other = claims;
  other.audience = {"uccp2"};
  EXPECT_EQ(reason(signer.sign(other).value()), "TOKEN_AUDIENCE");
}

TEST_F(JwtTest, AnyChangedCharacterIsRefused) {
  const std::string token = signer.sign(claims).value();
  for (size_t i = 0; i < token.size(); ++i) {
    std::string changed = token;
    changed[i] = changed[i] == 'A' ? 'B' : 'A';
    EXPECT_NE(reason(changed), "OK") << "at " << i;
  }
  for (size_t size = 0; size < token.size(); ++size) EXPECT_NE(reason(token.substr(0, size)), "OK");
}

TEST_F(JwtTest, AnUnknownKeyIsRefusedUntilItIsTrusted) {
  const TokenSigner other = TokenSigner::from_pem(TokenSigner::generate_key_pem().value()).value();
  const std::string token = other.sign(claims).value();
  EXPECT_EQ(reason(token), "TOKEN_SIGNATURE");
  ASSERT_TRUE(verifier.add_key(other.public_key_pem()).is_ok());
  EXPECT_EQ(reason(token), "OK");
  EXPECT_EQ(reason(signer.sign(claims).value()), "OK") << "the old key stays trusted";
}

TEST_F(JwtTest, OnlyTheOneAlgorithmIsAccepted) {
  const std::string kid = R"(","kid":")" + signer.key_id() + "\"}";
  for (const std::string alg : {"none", "HS256", "ES256", "eddsa", "EdDSA ", ""}) {
    EXPECT_EQ(reason(forge(R"({"alg":")" + alg + kid, payload())), "TOKEN_ALGORITHM") << alg;
  }
  EXPECT_EQ(reason(forge(R"({"kid":")" + signer.key_id() + "\"}", payload())), "TOKEN_ALGORITHM");
  EXPECT_EQ(reason(forge(R"({"alg":"EdDSA"})", payload())), "TOKEN_SIGNATURE") << "a key id is required";
}

TEST(SharedSecrets, ASecretIsAKeyForHs256AndNeedsLength) {
  EXPECT_EQ(TokenKey::from_secret(std::string(31, 'x')).error().reason(), "KEY_TOO_SHORT");
  const TokenKey key = TokenKey::from_secret(std::string(20, 0x0b) + std::string(12, 0)).value();
  EXPECT_EQ(key.algorithm(), "HS256");
  // RFC 4231, test case 1: a key shorter than a block is the same one with zeros behind it.
  const std::string mac = from_hex("b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7").value();
  EXPECT_TRUE(key.verifies("Hi There", mac));
  EXPECT_FALSE(key.verifies("Hi there", mac));
  EXPECT_FALSE(key.verifies("Hi There", mac.substr(0, 31)));
  EXPECT_FALSE(key.verifies("Hi There", ""));
}

TEST_F(JwtTest, AmbiguousOrOddDocumentsAreMalformed) {
  EXPECT_EQ(reason(forge(header(), payload())), "OK");
  const std::vector<std::string> odd_claims = {
      payload(R"(,"exp":1800000000)"),
      payload(R"(,"\u0073ub":"admin")"),
      payload(R"(,"x":{"y":1,"y":2})"),
      payload(R"(,"roles":"admin")"),
      payload(R"(,"roles":[1])"),
      payload(R"(,"nbf":"soon")"),
      payload(R"(,"nbf":1.5)"),
      payload(R"(,"nbf":-1)"),
      "[]",
      "",
      "{",
      R"({"iss":"https://issuer"})",
      payload(R"(,"nbf":99999999999999)"),
      payload() + " x",
  };
  for (const std::string& text : odd_claims) EXPECT_EQ(reason(forge(header(), text)), "TOKEN_MALFORMED") << text;
  const std::string odd_header = header();
  EXPECT_EQ(reason(forge(odd_header.substr(0, odd_header.size() - 1) + R"(,"crit":["x"]})", payload())),
            "TOKEN_MALFORMED");
  EXPECT_EQ(reason(forge(odd_header.substr(0, odd_header.size() - 1) + R"(,"alg":"none"})", payload())),
            "TOKEN_MALFORMED");
}

TEST_F(JwtTest, OtherFormsOfTheSameBytesAreMalformed) {
  const std::string token = signer.sign(claims).value();
  EXPECT_EQ(reason(token + "="), "TOKEN_MALFORMED");
  EXPECT_EQ(reason(token + ".x"), "TOKEN_MALFORMED");
  EXPECT_EQ(reason(" " + token), "TOKEN_MALFORMED");
  EXPECT_EQ(reason(""), "TOKEN_MALFORMED");
  EXPECT_EQ(reason(std::string(kTokenBytesMax + 1, 'a')), "TOKEN_MALFORMED");
}

TEST_F(JwtTest, DeepNestingIsMalformed) {
  const std::string deep = std::string(1000, '[') + std::string(1000, ']');
  EXPECT_EQ(reason(forge(header(), payload(",\"x\":" + deep))), "TOKEN_MALFORMED");
}

TEST_F(JwtTest, ATokenThatNobodyWouldAcceptIsNotSigned) {
  claims.roles.assign(2000, "role");
  EXPECT_EQ(signer.sign(claims).error().reason(), "TOKEN_TOO_LARGE");
}

TEST_F(JwtTest, OnlyEd25519KeysAreKeys) {
  const openssl::Key ec(EVP_EC_gen("P-256"));
  EXPECT_EQ(TokenSigner::from_pem(openssl::private_key_to_pem(ec.get())).error().reason(), "PEM_INVALID");
  EXPECT_EQ(verifier.add_key(openssl::public_key_to_pem(ec.get())).reason(), "PEM_INVALID");
  EXPECT_EQ(verifier.add_key("x").reason(), "PEM_INVALID");
}

}  // namespace
}  // namespace uccp::runtime
