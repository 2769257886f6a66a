// The files of spilled objects: their bytes, their limit, and what is damaged.
#include "shm/spill.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/bytes.h"
#include "runtime/posix_file_system.h"

namespace uccp::shm {
namespace {

class SpillTest : public ::testing::Test {
 protected:
  SpillTest() {
    std::string name = "/tmp/uccp-spill-test-XXXXXX";
    directory_ = mkdtemp(name.data());
  }
  ~SpillTest() override { std::filesystem::remove_all(directory_); }

  Spill open(uint64_t bytes_max = 1u << 20, Compression compression = Compression::kNone) {
    return Spill::open(files_, directory_, bytes_max, Pieces(SecretKey(), compression)).value();
  }
  static ObjectId id(uint8_t number) {
    ObjectId id{};
    for (size_t i = 0; i < id.size(); ++i) id[i] = static_cast<uint8_t>(number + i);
    return id;
  }
  std::string content(uint64_t file, Spill& spill) const {
    std::ifstream in(spill.path_of(file), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void damage(const std::string& path, int64_t at) const {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(at);
    const auto was = static_cast<char>(file.get());
    file.seekp(at);
    file.put(static_cast<char>(was ^ 1));
  }

  runtime::PosixFileSystem files_;
  std::string directory_;
};

TEST_F(SpillTest, BytesOfVersionTwo) {
  Spill spill = open();
  const std::vector<SpillObject> objects = {{.id = id(0), .content = "first"}, {.id = id(16), .content = "2"}};
  const auto places = spill.write(objects);
  ASSERT_TRUE(places.has_value());
  // Head and content of a piece are what AES-256-GCM makes with a key of zeros and the numbers 1 and 2.
  const std::string expected = to_hex("UCCPSPL") +
                               "02"
                               "000102030405060708090a0b0c0d0e0f"
                               "0000000000000005"
                               "0000000000000027"
                               "7d244781"
                               "00000023"
                               "0100000000000000000100000005"
                               "4fa8565180ad90b83d74f5a3fefba5c25a275d05a0"
                               "101112131415161718191a1b1c1d1e1f"
                               "0000000000000001"
                               "0000000000000023"
                               "ebf7ee8c"
                               "0000001f"
                               "0100000000000000000200000001"
                               "8c52ed6603f0de43a4d168cf0be3f86ed3";
  EXPECT_EQ(to_hex(content((*places)[0].file, spill)), expected);
  EXPECT_EQ(spill.bytes(), content((*places)[0].file, spill).size());
  std::string read(5, ' ');
  ASSERT_TRUE(spill.read((*places)[0], id(0), read).is_ok());
  EXPECT_EQ(read, "first");
}

TEST_F(SpillTest, EveryDamagedByteIsFound) {
  Spill spill = open();
  const std::vector<SpillObject> objects = {{.id = id(0), .content = "content"}};
  const SpillPlace place = spill.write(objects).value()[0];
  const std::string path = spill.path_of(place.file);
  const auto size = static_cast<int64_t>(std::filesystem::file_size(path));
  std::string read(7, ' ');
  for (int64_t at = 0; at < size; ++at) {
    damage(path, at);
    const Status status = spill.read(place, id(0), read);
    EXPECT_EQ(status.reason(), "SPILL_DAMAGED") << at;
    EXPECT_NE(status.message().find(path), std::string::npos);
    damage(path, at);
    ASSERT_TRUE(spill.read(place, id(0), read).is_ok()) << at;
  }
  std::filesystem::resize_file(path, static_cast<uintmax_t>(size - 1));
  EXPECT_EQ(spill.read(place, id(0), read).reason(), "SPILL_DAMAGED");
}

TEST_F(SpillTest, WhatIsLargerThanAPieceComesBackWholeAndCompressed) {
  Spill spill = open(64u << 20, Compression::kLz4);
  std::string large(2 * kPieceBytes + 1000, 'x');
  large[kPieceBytes] = 'y';
  const std::vector<SpillObject> objects = {{.id = id(0), .content = large}, {.id = id(1), .content = "small"}};
  const auto places = spill.write(objects).value();
  EXPECT_LT(spill.bytes(), large.size() / 10);
  EXPECT_EQ(content(places[0].file, spill).find("small"), std::string::npos) << "nobody reads it on the disk";
  std::string out(large.size(), ' ');
  ASSERT_TRUE(spill.read(places[0], id(0), out).is_ok());
  EXPECT_EQ(out, large);
  out.clear();
  const Status status = spill.read_pieces(places[0], id(0), [&](uint32_t index, std::string_view piece) {
    EXPECT_EQ(index * kPieceBytes, out.size());
    out += piece;
    return Status();
  });
  ASSERT_TRUE(status.is_ok());
  EXPECT_EQ(out, large);
  EXPECT_EQ(spill.read(places[1], id(0), std::span(out).first(5)).reason(), "SPILL_DAMAGED") << "of another object";
}

TEST_F(SpillTest, AFileGoesWithItsLastObjectAndFilesOfAnEarlierAgentAtOnce) {
  Spill spill = open(400);
  const std::vector<SpillObject> objects = {{.id = id(0), .content = "a"}, {.id = id(1), .content = "b"}};
  const auto places = spill.write(objects).value();
  const std::string large(400, 'x');
  const std::vector<SpillObject> too_much = {{.id = id(2), .content = large}};
  EXPECT_EQ(spill.write(too_much).error().reason(), "SPILL_FULL");
  spill.drop(places[0]);
  EXPECT_TRUE(std::filesystem::exists(spill.path_of(places[0].file)));
  spill.drop(places[1]);
  EXPECT_FALSE(std::filesystem::exists(spill.path_of(places[0].file)));
  EXPECT_EQ(spill.bytes(), 0u);
  const std::string left = spill.path_of(spill.write(objects).value()[0].file);
  ASSERT_TRUE(std::filesystem::exists(left));
  open();
  EXPECT_FALSE(std::filesystem::exists(left));
}

}  // namespace
}  // namespace uccp::shm
