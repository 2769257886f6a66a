#include "base/disk_cipher.h"

#include <gtest/gtest.h>

#include "base/bytes.h"

namespace uccp {
namespace {

SecretKey key_of(char digit) { return *SecretKey::parse(std::string(64, digit)); }

TEST(XtsCipher, WhatIsEncryptedComesBackFromAnyUnit) {
  XtsCipher cipher(key_of('1'));
  const std::string plain(2048, 'x');
  std::string data = plain;
  cipher.encrypt(5, data.data(), data.size());
  EXPECT_EQ(data.find("xxxx"), std::string::npos);
  // Equal units in different places differ.
  EXPECT_NE(data.substr(0, 512), data.substr(512, 512));
  std::string third = data.substr(1024, 512);
  cipher.decrypt(7, third.data(), third.size());
  EXPECT_EQ(third, std::string(512, 'x'));
  XtsCipher other(key_of('2'));
  other.decrypt(5, data.data(), data.size());
  EXPECT_NE(data, plain);
}

// What makes it right for a log: more text behind what is there changes none of its blocks.
TEST(XtsCipher, BlocksDoNotDependOnWhatFollows) {
  XtsCipher cipher(key_of('1'));
  std::string shorter(64, 'a'), longer(512, 'a');
  cipher.encrypt(0, shorter.data(), shorter.size());
  cipher.encrypt(0, longer.data(), longer.size());
  EXPECT_EQ(longer.substr(0, 64), shorter);
}

TEST(CtrCipher, AnyPieceIsReadWithoutTheRest) {
  const CtrCipher cipher(key_of('1'), "nonce123");
  std::string plain;
  for (int i = 0; i < 1000; ++i) plain.push_back(static_cast<char>(i * 7));
  std::string data = plain;
  cipher.apply(0, data.data(), data.size());
  for (const size_t at : {0, 1, 15, 16, 17, 500}) {
    std::string piece = data.substr(at, 100);
    cipher.apply(at, piece.data(), piece.size());
    EXPECT_EQ(piece, plain.substr(at, 100)) << at;
  }
  // NIST SP 800-38A has no vector with a counter from 0; this one is of another implementation.
  std::string zeros(16, '\0');
  CtrCipher(key_of('0'), std::string(8, '\0')).apply(0, zeros.data(), zeros.size());
  EXPECT_EQ(to_hex(zeros), "dc95c078a2408989ad48a21492842087");
}

}  // namespace
}  // namespace uccp
