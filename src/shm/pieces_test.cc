// Pieces of content outside of memory: what they become, that nobody reads them, and that every change is found.
#include "shm/pieces.h"

#include <gtest/gtest.h>

namespace uccp::shm {
namespace {

constexpr ObjectId kId = {1, 2, 3};

SecretKey key_of(char byte) { return SecretKey::from_bytes(std::string(SecretKey::kBytes, byte)).value(); }

std::string text(size_t size) {
  std::string content;
  while (content.size() < size) content += "the same words again and again, " + std::to_string(content.size() / 1000);
  content.resize(size);
  return content;
}

class PiecesTest : public ::testing::TestWithParam<Compression> {};

TEST_P(PiecesTest, ContentComesBack) {
  Pieces pieces(key_of('k'), GetParam());
  for (const size_t size : {size_t{0}, size_t{1}, size_t{1000}, kPieceBytes}) {
    const std::string content = text(size);
    const std::string sealed = pieces.seal(kId, 7, content);
    EXPECT_LE(sealed.size(), size + kPieceExtraBytes);
    std::string out(size, '\0');
    ASSERT_TRUE(pieces.open(kId, 7, sealed, out).is_ok()) << size;
    EXPECT_EQ(out, content);
    EXPECT_EQ(sealed.find("the same words"), std::string::npos) << "it cannot be read";
    if (size >= 1000 && GetParam() != Compression::kNone) EXPECT_LT(sealed.size(), size / 2);
  }
}

TEST_P(PiecesTest, EveryChangedBitIsFound) {
  Pieces pieces(key_of('k'), GetParam());
  const std::string content = text(200);
  const std::string sealed = pieces.seal(kId, 0, content);
  std::string out(content.size(), '\0');
  for (size_t bit = 0; bit < sealed.size() * 8; ++bit) {
    std::string changed = sealed;
    changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ (1 << bit % 8));
    EXPECT_EQ(pieces.open(kId, 0, changed, out).reason(), "PIECE_DAMAGED") << bit;
  }
  for (size_t size = 0; size < sealed.size(); ++size)
    EXPECT_EQ(pieces.open(kId, 0, sealed.substr(0, size), out).reason(), "PIECE_DAMAGED") << size;
}

INSTANTIATE_TEST_SUITE_P(All, PiecesTest,
                         ::testing::Values(Compression::kNone, Compression::kLz4, Compression::kZstd,
                                           Compression::kGzip));

TEST(Pieces, OneIsNotTakenForAnother) {
  Pieces pieces(key_of('k'), Compression::kNone);
  const std::string sealed = pieces.seal(kId, 1, "content");
  std::string out(7, '\0');
  ASSERT_TRUE(pieces.open(kId, 1, sealed, out).is_ok());
  EXPECT_FALSE(pieces.open(kId, 2, sealed, out).is_ok()) << "another piece";
  EXPECT_FALSE(pieces.open({9}, 1, sealed, out).is_ok()) << "another object";
  EXPECT_FALSE(Pieces(key_of('x'), Compression::kNone).open(kId, 1, sealed, out).is_ok()) << "another key";
  std::string shorter(6, '\0');
  EXPECT_FALSE(pieces.open(kId, 1, sealed, shorter).is_ok());
  EXPECT_NE(pieces.seal(kId, 1, "content"), sealed) << "no number is used twice";
}

TEST(Pieces, NamesOfCompressions) {
  EXPECT_EQ(parse_compression("none"), Compression::kNone);
  EXPECT_EQ(parse_compression("lz4"), Compression::kLz4);
  EXPECT_EQ(parse_compression("zstd"), Compression::kZstd);
  EXPECT_EQ(parse_compression("gzip"), Compression::kGzip);
  EXPECT_EQ(parse_compression("rar"), std::nullopt);
}

}  // namespace
}  // namespace uccp::shm
