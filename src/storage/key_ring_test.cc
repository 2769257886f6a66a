// The bytes of docs/formats/encryption.md.
#include "storage/key_ring.h"

#include <gtest/gtest.h>

#include "base/bytes.h"

namespace uccp::storage {
namespace {

SecretKey key_of(char digit) { return *SecretKey::parse(std::string(64, digit)); }

KeyRing two_keys() { return KeyRing({{"11111111", 5, key_of('1')}, {"22222222", 6, key_of('2')}}); }

TEST(KeyRing, IsReadWithItsMasterKeyOnly) {
  const std::string bytes = two_keys().encode(key_of('a'));
  const auto ring = KeyRing::decode(bytes, key_of('a'));
  ASSERT_TRUE(ring);
  EXPECT_EQ(ring->newest().id, "22222222");
  EXPECT_EQ(ring->find("11111111")->key.text(), key_of('1').text());
  EXPECT_EQ(ring->find("33333333"), nullptr);
  EXPECT_EQ(KeyRing::decode(bytes, key_of('b')).error().reason(), "MASTER_KEY_WRONG");
  EXPECT_EQ(bytes.find(std::string(key_of('1').bytes())), std::string::npos);
  for (size_t i = 0; i < bytes.size(); ++i) {
    std::string damaged = bytes;
    damaged[i] ^= 1;
    EXPECT_EQ(KeyRing::decode(damaged, key_of('a')).error().code(), Code::kCorruption) << i;
    EXPECT_FALSE(KeyRing::decode(bytes.substr(0, i), key_of('a'))) << i;
  }
}

TEST(KeyRing, ANewMasterKeyWrapsTheSameKeys) {
  const auto ring = KeyRing::decode(two_keys().encode(key_of('a')), key_of('a'));
  const auto again = KeyRing::decode(ring->encode(key_of('b')), key_of('b'));
  ASSERT_TRUE(again);
  EXPECT_EQ(again->find("11111111")->key.text(), key_of('1').text());
}

TEST(KeyRing, TheBytesAreWhatThePageSays) {
  const std::string bytes = KeyRing({{"11111111", 5, key_of('1')}}).encode(key_of('a'));
  EXPECT_EQ(to_hex(bytes),
            "554343504b45590a"
            "00000001" +
                to_hex(key_of('a').id()) +
                "00000001"
                "3131313131313131"
                "0000000000000005" +
                to_hex(bytes.substr(40, 48)) + to_hex(bytes.substr(88)));
  EXPECT_EQ(bytes.size(), 92u);
  EXPECT_EQ(to_hex(bytes.substr(88)), to_hex(ByteWriter().u32(crc32c(bytes.substr(0, 88))).data()));
}

}  // namespace
}  // namespace uccp::storage
