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
  EXPECT_TRUE(files.sync_directory("/d").is_ok());
  return std::move(*file);
}

TEST(SimFileSystem, UnsyncedWritesAreLostInACrash) {
  SimFileSystem files;
  ASSERT_TRUE(files.make_directories("/d").is_ok());
  auto file = durable_file(files, "/d/a");
  ASSERT_TRUE(file->write_at(0, "one").is_ok());
  ASSERT_TRUE(file->sync().is_ok());
  ASSERT_TRUE(file->write_at(3, "two").is_ok());
  EXPECT_EQ(content(files, "/d/a"), "onetwo");
  files.crash_losing_unsynced();
  EXPECT_EQ(content(files, "/d/a"), "one");
}

TEST(SimFileSystem, ASyncedFileIsLostIfItsDirectoryWasNotSynced) {
  SimFileSystem files;
  ASSERT_TRUE(files.make_directories("/d").is_ok());
  {
    auto file = files.open("/d/a", OpenMode::kCreate);
    ASSERT_TRUE(file);
    ASSERT_TRUE((*file)->write_at(0, "one").is_ok());
    ASSERT_TRUE((*file)->sync().is_ok());
  }
  files.crash_losing_unsynced();
  EXPECT_EQ(content(files, "/d/a"), "<FILE_NOT_FOUND>");
}

TEST(SimFileSystem, ARenameIsAtomicAndLostIfNotSynced) {
  SimFileSystem files;
  ASSERT_TRUE(files.make_directories("/d").is_ok());
  ASSERT_TRUE(write_file_atomically(files, "/d/a", "old").is_ok());
  {
    auto file = durable_file(files, "/d/b");
    ASSERT_TRUE(file->write_at(0, "new").is_ok());
    ASSERT_TRUE(file->sync().is_ok());
  }
  ASSERT_TRUE(files.rename("/d/b", "/d/a").is_ok());
  EXPECT_EQ(content(files, "/d/a"), "new");
  files.crash_losing_unsynced();
  EXPECT_EQ(content(files, "/d/a"), "old");
  EXPECT_EQ(content(files, "/d/b"), "new");
}

TEST(SimFileSystem, WriteFileAtomicallyLeavesOldOrNewAtEveryCrashPoint) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    for (uint64_t point = 0;; ++point) {
      SimFileSystem files;
      ASSERT_TRUE(files.make_directories("/d").is_ok());
      SeededRandom random(seed);
      ASSERT_TRUE(write_file_atomically(files, "/d/a", "old").is_ok());
      files.fail_after(point);
      const Status written = write_file_atomically(files, "/d/a", "new");
      files.crash(random);
      const std::string now = content(files, "/d/a");
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
    ASSERT_TRUE(files.make_directories("/d").is_ok());
    SeededRandom random(seed);
    auto file = durable_file(files, "/d/a");
    ASSERT_TRUE(file->allocate(2048).is_ok());
    ASSERT_TRUE(file->sync().is_ok());
    ASSERT_TRUE(file->write_at(0, std::string(2048, 'x')).is_ok());
    files.crash(random);
    const std::string data = content(files, "/d/a");
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
  ASSERT_TRUE(files.make_directories("/d").is_ok());
  auto file = durable_file(files, "/d/a");
  ASSERT_TRUE(file->write_at(0, "lost").is_ok());
  files.fail_next_sync("/d/a");
  EXPECT_EQ(file->sync().reason(), "IO_ERROR");
  EXPECT_TRUE(file->sync().is_ok());
  EXPECT_EQ(content(files, "/d/a"), "lost");
  files.crash_losing_unsynced();
  EXPECT_EQ(content(files, "/d/a"), "");
}

TEST(SimFileSystem, AShortWriteKeepsItsBeginning) {
  SimFileSystem files;
  ASSERT_TRUE(files.make_directories("/d").is_ok());
  auto file = durable_file(files, "/d/a");
  files.short_write(2);
  EXPECT_FALSE(file->write_at(0, "abcdef").is_ok());
  EXPECT_EQ(content(files, "/d/a"), "ab");
  EXPECT_TRUE(file->write_at(0, "abcdef").is_ok());
}

TEST(SimFileSystem, AFullDiskRefusesToGrowButNotToOverwrite) {
  SimFileSystem files;
  ASSERT_TRUE(files.make_directories("/d").is_ok());
  auto file = durable_file(files, "/d/a");
  ASSERT_TRUE(file->allocate(100).is_ok());
  files.set_capacity(110);
  EXPECT_TRUE(file->write_at(0, std::string(100, 'x')).is_ok());
  EXPECT_EQ(file->allocate(111).reason(), "NO_SPACE");
  EXPECT_EQ(file->write_at(100, std::string(20, 'y')).reason(), "NO_SPACE");
  EXPECT_EQ(*files.free_bytes("/"), 0u);
  ASSERT_TRUE(files.remove("/d/a").is_ok());
  EXPECT_EQ(*files.free_bytes("/"), 110u);
}

TEST(SimFileSystem, HandlesOfACrashedProcessAreDead) {
  SimFileSystem files;
  ASSERT_TRUE(files.make_directories("/d").is_ok());
  auto file = durable_file(files, "/d/a");
  files.crash_keeping_all();
  EXPECT_FALSE(file->write_at(0, "x").is_ok());
  EXPECT_FALSE(file->sync().is_ok());
  EXPECT_EQ(content(files, "/d/a"), "");
}

TEST(SimFileSystem, AFlippedBitIsDurable) {
  SimFileSystem files;
  ASSERT_TRUE(files.make_directories("/d").is_ok());
  ASSERT_TRUE(write_file_atomically(files, "/d/a", "b").is_ok());
  files.flip_bit("/d/a", 0, 0);
  EXPECT_EQ(content(files, "/d/a"), "c");
  files.crash_losing_unsynced();
  EXPECT_EQ(content(files, "/d/a"), "c");
}

TEST(SimFileSystem, ListsFilesAndDirectoriesSorted) {
  SimFileSystem files;
  ASSERT_TRUE(files.make_directories("/d").is_ok());
  ASSERT_TRUE(files.make_directories("/d/e").is_ok());
  ASSERT_TRUE(write_file_atomically(files, "/d/b", "").is_ok());
  ASSERT_TRUE(write_file_atomically(files, "/d/a", "").is_ok());
  EXPECT_EQ(*files.list("/d"), (std::vector<std::string>{"a", "b", "e"}));
  EXPECT_FALSE(files.sync_directory("/x").is_ok());
  EXPECT_EQ(files.list("/x").error().reason(), "FILE_NOT_FOUND");
  EXPECT_EQ(files.open("/x/a", OpenMode::kCreate).error().reason(), "FILE_NOT_FOUND");
  EXPECT_EQ(files.open("/d/a", OpenMode::kCreate).error().reason(), "FILE_EXISTS");
}

}  // namespace
}  // namespace uccp::sim
