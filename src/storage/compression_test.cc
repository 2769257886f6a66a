#include "storage/compression.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace uccp::storage {
namespace {

std::string noise(size_t size) {
  SeededRandom random(7);
  std::string bytes;
  while (bytes.size() < size) bytes.push_back(static_cast<char>(random.next()));
  return bytes;
}

TEST(Compression, WhatIsPackedComesBack) {
  for (const Encoding encoding : {Encoding::kRaw, Encoding::kLz4, Encoding::kZstd}) {
    Packer packer({encoding, 16});
    for (const std::string& piece : {std::string(), std::string(15, 'x'), std::string(100'000, 'x'), noise(5000)}) {
      std::string out = "before";
      const Encoding used = packer.pack(piece, out);
      ASSERT_EQ(out.substr(0, 6), "before");
      EXPECT_EQ(unpack(used, std::string_view(out).substr(6)), piece);
    }
  }
}

TEST(Compression, AnEntryIsWrittenInTheFormInWhichItCame) {
  Packer packer({Encoding::kLz4, 16});
  Entry entry{Term(1), LogIndex(1), EntryKind::kCommand, std::string(5000, 'x')};
  std::string made;
  EXPECT_EQ(packer.pack(entry, made), Encoding::kLz4) << "nobody packed it yet";
  entry.packed = std::make_shared<const PackedData>(PackedData{static_cast<uint8_t>(Encoding::kZstd), "as it came"});
  std::string out;
  EXPECT_EQ(packer.pack(entry, out), Encoding::kZstd);
  EXPECT_EQ(out, "as it came");
  out.clear();
  entry.packed = std::make_shared<const PackedData>();
  EXPECT_EQ(packer.pack(entry, out), Encoding::kRaw) << "it was tried, and did not become smaller";
  EXPECT_EQ(out, entry.data);
}

TEST(Compression, SmallAndRandomPiecesStayRaw) {
  for (const Encoding encoding : {Encoding::kLz4, Encoding::kZstd}) {
    Packer packer({encoding, 1000});
    std::string out;
    EXPECT_EQ(packer.pack(std::string(999, 'x'), out), Encoding::kRaw);
    EXPECT_EQ(packer.pack(noise(5000), out), Encoding::kRaw);
    EXPECT_EQ(out, std::string(999, 'x') + noise(5000));
    out.clear();
    EXPECT_EQ(packer.pack(std::string(1000, 'x'), out), encoding);
    EXPECT_LT(out.size(), 100u);
  }
}

TEST(Compression, SavedBytesAreCounted) {
  MetricsRegistry metrics;
  Counter& saved = saved_bytes_counter(metrics, "log");
  Packer packer({Encoding::kLz4, 10}, &saved);
  std::string out;
  packer.pack(std::string(10'000, 'x'), out);
  EXPECT_EQ(saved.value(), 10'000 - (out.size() - 4));
}

TEST(Compression, DamageIsNoticedOrHarmless) {
  for (const Encoding encoding : {Encoding::kLz4, Encoding::kZstd}) {
    Packer packer({encoding, 10});
    std::string out;
    ASSERT_EQ(packer.pack(std::string(1000, 'x') + "end", out), encoding);
    for (size_t size = 0; size < out.size(); ++size) {
      EXPECT_FALSE(unpack(encoding, std::string_view(out).substr(0, size))) << size;
    }
    std::string longer = out;
    longer[0] = 0x10;  // says 256 MiB
    EXPECT_FALSE(unpack(encoding, longer));
    EXPECT_FALSE(unpack(static_cast<Encoding>(3), out));
  }
}

}  // namespace
}  // namespace uccp::storage
