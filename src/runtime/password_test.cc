#include "runtime/password.h"

#include <gtest/gtest.h>

namespace uccp::runtime {
namespace {

TEST(Password, TheRightOneOpensAndNoOther) {
  const auto hash = hash_password("correct horse battery", "0123456789abcdef", kPasswordCost);
  ASSERT_TRUE(hash);
  EXPECT_TRUE(hash->starts_with("$argon2id$v=19$m=19456,t=2,p=1$")) << *hash;
  EXPECT_TRUE(check_password(*hash, "correct horse battery"));
  EXPECT_FALSE(check_password(*hash, "correct horse batterz"));
  EXPECT_FALSE(check_password(*hash, ""));
  EXPECT_FALSE(check_password("", "correct horse battery"));
  EXPECT_FALSE(check_password("$argon2id$nonsense", "correct horse battery"));
}

TEST(Password, TheSaltMakesEqualPasswordsDifferent) {
  EXPECT_NE(*hash_password("correct horse battery", "0123456789abcdef", kPasswordCost),
            *hash_password("correct horse battery", "0123456789abcdeg", kPasswordCost));
}

TEST(Password, ApiKeysCostLessAndAreCheckedTheSame) {
  const auto hash = hash_password("secret of a key", "0123456789abcdef", kApiKeyCost);
  ASSERT_TRUE(hash);
  EXPECT_TRUE(hash->starts_with("$argon2id$v=19$m=1024,t=1,p=1$")) << *hash;
  EXPECT_TRUE(check_password(*hash, "secret of a key"));
  EXPECT_FALSE(check_password(*hash, "secret of a kez"));
}

// RFC 6238, appendix B, cut to six digits.
TEST(Totp, MakesTheCodesOfTheRfc) {
  const std::string secret = "12345678901234567890";
  EXPECT_EQ(totp_code(secret, 59 / 30), "287082");
  EXPECT_EQ(totp_code(secret, 1111111109 / 30), "081804");
  EXPECT_EQ(totp_code(secret, 1234567890 / 30), "005924");
  EXPECT_EQ(totp_code(secret, 20000000000 / 30), "353130");
}

}  // namespace
}  // namespace uccp::runtime
