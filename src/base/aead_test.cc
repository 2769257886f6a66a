#include "base/aead.h"

#include <gtest/gtest.h>

#include "base/bytes.h"

namespace uccp {
namespace {

SecretKey key_of(char digit) { return *SecretKey::parse(std::string(64, digit)); }

// Test case 13 of the GCM specification: zero key, zero nonce, nothing to encrypt.
TEST(Aead, IsAesGcm) {
  EXPECT_EQ(to_hex(Aead(key_of('0')).seal(0, "", "")), "530f8afbc74536b9a963b4f1c4cb738b");
  // Test case 14: one block of zeros.
  EXPECT_EQ(to_hex(Aead(key_of('0')).seal(0, "", std::string(16, '\0'))),
            "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919");
}

TEST(Aead, OnlyWhatWasSealedOpens) {
  const Aead aead(key_of('a'));
  const std::string sealed = aead.seal(7, "bound", "secret");
  EXPECT_EQ(aead.open(7, "bound", sealed), "secret");
  EXPECT_FALSE(aead.open(8, "bound", sealed));
  EXPECT_FALSE(aead.open(7, "other", sealed));
  EXPECT_FALSE(Aead(key_of('b')).open(7, "bound", sealed));
  for (size_t i = 0; i < sealed.size(); ++i) {
    std::string damaged = sealed;
    damaged[i] ^= 1;
    EXPECT_FALSE(aead.open(7, "bound", damaged)) << i;
    EXPECT_FALSE(aead.open(7, "bound", sealed.substr(0, i))) << i;
  }
}

TEST(SecretKey, KeysOfDifferentPurposesDiffer) {
  const SecretKey key = key_of('1');
  // As an implementation of RFC 5869 in another language computes it.
  EXPECT_EQ(to_hex(key.derive("salt", "a").bytes()),
            "174daa3e3674aa4a0614d0454aeeeb2732d67bf8cc21547100318f7c4d422e4b");
  EXPECT_EQ(key.derive("salt", "a").text(), key.derive("salt", "a").text());
  EXPECT_NE(key.derive("salt", "a").text(), key.derive("salt", "b").text());
  EXPECT_NE(key.derive("salt", "a").text(), key.derive("tlas", "a").text());
  EXPECT_NE(key.id(), key_of('2').id());
  EXPECT_EQ(key.id().size(), 8u);
}

TEST(SecretKey, AKeyFileIsReadAndAnythingElseIsRefused) {
  SeededRandom random(1);
  const SecretKey key = SecretKey::make(random);
  EXPECT_EQ(SecretKey::parse("  " + key.text() + "\n")->bytes(), key.bytes());
  for (const std::string& text : {std::string(), std::string(63, 'a'), std::string(65, 'a'), std::string(64, 'x')}) {
    EXPECT_EQ(SecretKey::parse(text).error().reason(), "KEY_INVALID");
  }
}

}  // namespace
}  // namespace uccp
