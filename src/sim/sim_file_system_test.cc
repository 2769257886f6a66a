#include "sim/sim_file_system.h"

#include <gtest/gtest.h>

namespace uccp::sim {
namespace {

std::string content(FileSystem& files, const std::string& path) {
  auto data = read_file(files, path, 1 << 20);
  return data ? *data : "<" + std::string(data.error().reason()) + ">";
}

// A file whose name is durable.
std::unique_ptr<File> durable_file(SimFileSystem& files, const std::string& path) {
  auto file = files.open(path, OpenMode::kCreate);
  EXPECT_TRUE(file);
  EXPECT_TRUE(files.sync_directory("/").is_ok());
  return std::move(*file);
}

TEST(SimFileSystem, UnsyncedWritesAreLostInACrash) {
  SimFileSystem files;
  auto file = durable_file(files, "/a");
  ASSERT_TRUE(file->write_at(0, "one").is_ok());
  ASSERT_TRUE(file->sync().is_ok());
  ASSERT_TRUE(file->write_at(3, "two").is_ok());
  EXPECT_EQ(content(files, "/a"), "onetwo");
  files.crash_losing_unsynced();
  EXPECT_EQ(content(files, "/a"), "one");
}

TEST(SimFileSystem, ASyncedFileIsLostIfItsDirectoryWasNotSynced) {
  SimFileSystem files;
  {
    auto file = files.open("/a", OpenMode::kCreate);
    ASSERT_TRUE(file);
    ASSERT_TRUE((*file)->write_at(0, "one").is_ok());
    ASSERT_TRUE((*file)->sync().is_ok());
  }
  files.crash_losing_unsynced();
  EXPECT_EQ(content(files, "/a"), "<FILE_NOT_FOUND>");
}

TEST(SimFileSystem, ARenameIsAtomicAndLostIfNotSynced) {
  SimFileSystem files;
  ASSERT_TRUE(write_file_atomically(files, "/a", "old").is_ok());
  {
    auto file = durable_file(files, "/b");
    ASSERT_TRUE(file->write_at(0, "new").is_ok());
    ASSERT_TRUE(file->sync().is_ok());
  }
  ASSERT_TRUE(files.rename("/b", "/a").is_ok());
  EXPECT_EQ(content(files, "/a"), "new");
  files.crash_losing_unsynced();
  EXPECT_EQ(content(files, "/a"), "old");
  EXPECT_EQ(content(files, "/b"), "new");
}

TEST(SimFileSystem, WriteFileAtomicallyLeavesOldOrNewAtEveryCrashPoint) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    for (uint64_t point = 0;; ++point) {
      SimFileSystem files;
      SeededRandom random(seed);
      ASSERT_TRUE(write_file_atomically(files, "/a", "old").is_ok());
      files.fail_after(point);
      const Status written = write_file_atomically(files, "/a", "new");
      files.crash(random);
      const std::string now = content(files, "/a");
      EXPECT_TRUE(now == "old" || now == "new") << now;
      if (!written.is_ok()) continue;
      EXPECT_EQ(now, "new");
      break;
    }
  }
}

TEST(SimFileSystem, ATornWriteKeepsWholeSectors) {
  bool torn = false;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    SimFileSystem files;
    SeededRandom random(seed);
    auto file = durable_file(files, "/a");
    ASSERT_TRUE(file->allocate(2048).is_ok());
    ASSERT_TRUE(file->sync().is_ok());
    ASSERT_TRUE(file->write_at(0, std::string(2048, 'x')).is_ok());
    files.crash(random);
    const std::string data = content(files, "/a");
    ASSERT_EQ(data.size(), 2048u);
    for (size_t at = 0; at < data.size(); at += 512) {
      const std::string sector = data.substr(at, 512);
      EXPECT_TRUE(sector == std::string(512, 'x') || sector == std::string(512, '\0'));
    }
    torn |= data.find('x') != std::string::npos && data.find('\0') != std::string::npos;
  }
  EXPECT_TRUE(torn);
}

TEST(SimFileSystem, AFailedSyncDropsTheWritesForGood) {
  SimFileSystem files;
  auto file = durable_file(files, "/a");
  ASSERT_TRUE(file->write_at(0, "lost").is_ok());
  files.fail_next_sync("/a");
  EXPECT_EQ(file->sync().reason(), "IO_ERROR");
  EXPECT_TRUE(file->sync().is_ok());
  EXPECT_EQ(content(files, "/a"), "lost");
  files.crash_losing_unsynced();
  EXPECT_EQ(content(files, "/a"), "");
}

TEST(SimFileSystem, AShortWriteKeepsItsBeginning) {
  SimFileSystem files;
  auto file = durable_file(files, "/a");
  files.short_write(2);
  EXPECT_FALSE(file->write_at(0, "abcdef").is_ok());
  EXPECT_EQ(content(files, "/a"), "ab");
  EXPECT_TRUE(file->write_at(0, "abcdef").is_ok());
}

TEST(SimFileSystem, AFullDiskRefusesToGrowButNotToOverwrite) {
  SimFileSystem files;
  auto file = durable_file(files, "/a");
  ASSERT_TRUE(file->allocate(100).is_ok());
  files.set_capacity(110);
  EXPECT_TRUE(file->write_at(0, std::string(100, 'x')).is_ok());
  EXPECT_EQ(file->allocate(111).reason(), "NO_SPACE");
  EXPECT_EQ(file->write_at(100, std::string(20, 'y')).reason(), "NO_SPACE");
  EXPECT_EQ(*files.free_bytes("/"), 0u);
  ASSERT_TRUE(files.remove("/a").is_ok());
  EXPECT_EQ(*files.free_bytes("/"), 110u);
}

TEST(SimFileSystem, HandlesOfACrashedProcessAreDead) {
  SimFileSystem files;
  auto file = durable_file(files, "/a");
  files.crash_keeping_all();
  EXPECT_FALSE(file->write_at(0, "x").is_ok());
  EXPECT_FALSE(file->sync().is_ok());
  EXPECT_EQ(content(files, "/a"), "");
}

TEST(SimFileSystem, AFlippedBitIsDurable) {
  SimFileSystem files;
  ASSERT_TRUE(write_file_atomically(files, "/a", "b").is_ok());
  files.flip_bit("/a", 0, 0);
  EXPECT_EQ(content(files, "/a"), "c");
  files.crash_losing_unsynced();
  EXPECT_EQ(content(files, "/a"), "c");
}

TEST(SimFileSystem, ListsFilesAndDirectoriesSorted) {
  SimFileSystem files;
  ASSERT_TRUE(files.make_directories("/d/e").is_ok());
  ASSERT_TRUE(write_file_atomically(files, "/d/b", "").is_ok());
  ASSERT_TRUE(write_file_atomically(files, "/d/a", "").is_ok());
  EXPECT_EQ(*files.list("/d"), (std::vector<std::string>{"a", "b", "e"}));
  EXPECT_EQ(files.list("/x").error().reason(), "FILE_NOT_FOUND");
  EXPECT_EQ(files.open("/x/a", OpenMode::kCreate).error().reason(), "FILE_NOT_FOUND");
  EXPECT_EQ(files.open("/d/a", OpenMode::kCreate).error().reason(), "FILE_EXISTS");
}

}  // namespace
}  // namespace uccp::sim
