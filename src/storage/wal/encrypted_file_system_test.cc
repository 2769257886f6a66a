// EncryptedFileSystem against the plain one: whatever is done to a file, both read the same. The bytes are those of
// docs/formats/encryption.md.
#include "storage/encrypted_file_system.h"

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "sim/sim_file_system.h"

namespace uccp::storage {
namespace {

struct Pair {
  sim::SimFileSystem disk, plain;
  KeyRing keys{{{"11111111", 5, *SecretKey::parse(std::string(64, '1'))}}};
  SeededRandom random{1};
  EncryptedFileSystem encrypted{disk, keys, random};

  Pair() { EXPECT_TRUE(disk.make_directories("/d").is_ok() && plain.make_directories("/d").is_ok()); }
};

TEST(EncryptedFile, ReadsAsAPlainOneWhateverIsDoneToIt) {
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    Pair p;
    SeededRandom random(seed);
    auto secret = std::move(*p.encrypted.open("/d/f", OpenMode::kCreate));
    auto plain = std::move(*p.plain.open("/d/f", OpenMode::kCreate));
    for (int step = 0; step < 60; ++step) {
      const uint64_t at = random.below(3000);
      const std::string data(random.below(1200), static_cast<char>('a' + step % 26));
      const auto both = [&](auto operation) { ASSERT_TRUE(operation(*secret).is_ok() && operation(*plain).is_ok()); };
      switch (random.below(5)) {
        case 0: both([&](File& file) { return file.truncate(at); }); break;
        case 1: both([&](File& file) { return file.allocate(at); }); break;
        case 2: {
          ASSERT_TRUE(secret->sync().is_ok());
          secret = std::move(*p.encrypted.open("/d/f", OpenMode::kReadWrite));
          break;
        }
        default: both([&](File& file) { return file.write_at(at, data); });
      }
      ASSERT_EQ(*secret->size(), *plain->size()) << "seed " << seed << " step " << step;
      std::string expected, found;
      const uint64_t from = random.below(3500);
      const size_t size = random.below(4000);
      ASSERT_TRUE(plain->read_at(from, size, expected).is_ok() && secret->read_at(from, size, found).is_ok());
      ASSERT_EQ(found, expected) << "seed " << seed << " step " << step << " from " << from << " size " << size;
    }
  }
}

TEST(EncryptedFile, TheBytesStayReadable) {
  Pair p;
  ASSERT_TRUE(write_file_atomically(p.encrypted, "/d/f", "twenty bytes of text").is_ok());
  const std::string bytes = *read_file(p.disk, "/d/f", 1 << 20);
  ASSERT_EQ(bytes.size(), 4096u + 32);
  EXPECT_EQ(to_hex(bytes.substr(0, 12)),
            "55434350454e430a"
            "00000001");
  EXPECT_EQ(bytes.substr(12, 8), "11111111");
  EXPECT_EQ(bytes[52], 12) << "bytes of the last block that are no content";
  EXPECT_EQ(to_hex(bytes.substr(53, 4)), to_hex(ByteWriter().u32(crc32c(bytes.substr(0, 53))).data()));
  EXPECT_EQ(to_hex(sha256(bytes.substr(4096))), "3763fa385fe6715a14a165d112bb4b7d0414b57cc72dbcfa15e3359ba708c53e");
  EXPECT_EQ(*read_file(p.encrypted, "/d/f", 1 << 20), "twenty bytes of text");
}

// Whatever the padding and wherever the file was cut: what can be read is what the size says, and writing goes on
// there.
TEST(EncryptedFile, ACutFileEndsWithItsLastWholeBlock) {
  for (uint64_t padding = 0; padding < 20; ++padding) {
    for (uint64_t content = 0; content < 70; ++content) {
      Pair p;
      std::string page = ByteWriter().raw("UCCPENC\n").u32(1).raw("11111111").raw(std::string(32, 's')).take();
      page.push_back(static_cast<char>(padding));
      page += ByteWriter().u32(crc32c(page)).data();
      page.resize(4096);
      ASSERT_TRUE(write_file_atomically(p.disk, "/d/f", page + std::string(content, 'c')).is_ok());
      auto file = p.encrypted.open("/d/f", OpenMode::kReadWrite);
      ASSERT_EQ(file.has_value(), padding < 16) << padding;
      if (!file) continue;
      std::string read, again;
      ASSERT_TRUE((*file)->read_at(0, 1000, read).is_ok());
      ASSERT_EQ(*(*file)->size(), read.size()) << padding << " " << content;
      ASSERT_TRUE((*file)->write_at(read.size(), "more").is_ok() && (*file)->read_at(0, 1000, again).is_ok());
      ASSERT_EQ(again, read + "more") << padding << " " << content;
    }
  }
}

TEST(EncryptedFile, ADamagedHeaderAndALaterVersionAreRefused) {
  Pair p;
  ASSERT_TRUE(write_file_atomically(p.encrypted, "/d/f", "text").is_ok());
  const std::string good = *read_file(p.disk, "/d/f", 1 << 20);
  for (size_t at = 8; at < 57; ++at) {
    std::string bad = good;
    bad[at] ^= 1;
    ASSERT_TRUE(write_file_atomically(p.disk, "/d/f", bad).is_ok());
    EXPECT_EQ(p.encrypted.open("/d/f", OpenMode::kRead).error().reason(), "ENCRYPTED_FILE_DAMAGED") << at;
  }
  std::string later = good.substr(0, 53);
  later[11] = 2;
  later += ByteWriter().u32(crc32c(later)).data();
  ASSERT_TRUE(write_file_atomically(p.disk, "/d/f", later).is_ok());
  EXPECT_EQ(p.encrypted.open("/d/f", OpenMode::kRead).error().reason(), "ENCRYPTION_VERSION_UNSUPPORTED");
}

}  // namespace
}  // namespace uccp::storage
