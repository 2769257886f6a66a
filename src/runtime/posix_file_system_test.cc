#include "runtime/posix_file_system.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <fstream>

#include "runtime/test_support.h"

namespace uccp::runtime {
namespace {

using testing::TemporaryDirectory;

mode_t mode_of(const std::string& path) {
  struct stat info{};
  EXPECT_EQ(::stat(path.c_str(), &info), 0);
  return info.st_mode & 07777;
}

TEST(PosixFileSystem, ReadsBackWhatWasWritten) {
  TemporaryDirectory directory;
  PosixFileSystem files;
  auto file = files.open(directory.at("a"), OpenMode::kCreate);
  ASSERT_TRUE(file);
  ASSERT_TRUE((*file)->write_at(0, "hello world").is_ok());
  ASSERT_TRUE((*file)->write_at(6, "there").is_ok());
  ASSERT_TRUE((*file)->sync().is_ok());
  std::string data;
  ASSERT_TRUE((*file)->read_at(0, 100, data).is_ok());
  EXPECT_EQ(data, "hello there");
  ASSERT_TRUE((*file)->read_at(100, 5, data).is_ok());
  EXPECT_EQ(data, "") << "nothing is behind the end";
  EXPECT_EQ((*file)->size().value(), 11u);
  ASSERT_TRUE((*file)->truncate(5).is_ok());
  EXPECT_EQ(read_file(files, directory.at("a"), 100).value(), "hello");
}

TEST(PosixFileSystem, OpenModesSayWhatMustExist) {
  TemporaryDirectory directory;
  PosixFileSystem files;
  EXPECT_EQ(files.open(directory.at("a"), OpenMode::kRead).error().reason(), "FILE_NOT_FOUND");
  EXPECT_EQ(files.open(directory.at("a"), OpenMode::kReadWrite).error().code(), Code::kNotFound);
  EXPECT_TRUE(files.open(directory.at("a"), OpenMode::kCreateOrOpen));
  EXPECT_TRUE(files.open(directory.at("a"), OpenMode::kCreateOrOpen));
  EXPECT_EQ(files.open(directory.at("a"), OpenMode::kCreate).error().reason(), "FILE_EXISTS");
}

TEST(PosixFileSystem, FilesAndDirectoriesAreForTheirOwnerOnly) {
  TemporaryDirectory directory;
  PosixFileSystem files;
  ASSERT_TRUE(files.make_directories(directory.at("x/y/z")).is_ok());
  ASSERT_TRUE(files.make_directories(directory.at("x/y/z")).is_ok());
  ASSERT_TRUE(files.open(directory.at("x/y/z/f"), OpenMode::kCreate));
  EXPECT_EQ(mode_of(directory.at("x")), 0700u);
  EXPECT_EQ(mode_of(directory.at("x/y/z")), 0700u);
  EXPECT_EQ(mode_of(directory.at("x/y/z/f")), 0600u);
}

TEST(PosixFileSystem, ADirectoryIsNotMadeOverAFile) {
  TemporaryDirectory directory;
  PosixFileSystem files;
  ASSERT_TRUE(files.open(directory.at("f"), OpenMode::kCreate));
  EXPECT_FALSE(files.make_directories(directory.at("f")).is_ok());
  EXPECT_FALSE(files.make_directories(directory.at("f/g")).is_ok());
}

TEST(PosixFileSystem, AllocatedSpaceReadsAsZerosAndKeepsWhatWasThere) {
  TemporaryDirectory directory;
  PosixFileSystem files;
  auto file = files.open(directory.at("a"), OpenMode::kCreate);
  ASSERT_TRUE(file && (*file)->write_at(0, "abc").is_ok());
  ASSERT_TRUE((*file)->allocate(1 << 20).is_ok());
  EXPECT_EQ((*file)->size().value(), 1u << 20);
  std::string data;
  ASSERT_TRUE((*file)->read_at(0, 5, data).is_ok());
  EXPECT_EQ(data, std::string("abc\0\0", 5));
  ASSERT_TRUE((*file)->allocate(10).is_ok());
  EXPECT_EQ((*file)->size().value(), 1u << 20) << "allocating never shrinks";
}

TEST(PosixFileSystem, ListsNamesSortedAndRenamesAtomically) {
  TemporaryDirectory directory;
  PosixFileSystem files;
  for (const char* name : {"b", "a", "c"}) ASSERT_TRUE(files.open(directory.at(name), OpenMode::kCreate));
  EXPECT_EQ(files.list(directory.path()).value(), (std::vector<std::string>{"a", "b", "c"}));
  ASSERT_TRUE(files.rename(directory.at("a"), directory.at("c")).is_ok());
  ASSERT_TRUE(files.sync_directory(directory.path()).is_ok());
  EXPECT_FALSE(files.exists(directory.at("a")).value());
  ASSERT_TRUE(files.remove(directory.at("b")).is_ok());
  ASSERT_TRUE(files.remove(directory.at("b")).is_ok()) << "removing what is not there is fine";
  EXPECT_EQ(files.list(directory.path()).value(), (std::vector<std::string>{"c"}));
  EXPECT_EQ(files.list(directory.at("none")).error().code(), Code::kNotFound);
  EXPECT_GT(files.free_bytes(directory.path()).value(), 0u);
}

TEST(PosixFileSystem, AFullDiskIsNoSpace) {
  PosixFileSystem files;
  auto full = files.open("/dev/full", OpenMode::kReadWrite);
  if (!full) GTEST_SKIP() << "no /dev/full here";
  const Status status = (*full)->write_at(0, "x");
  EXPECT_EQ(status.code(), Code::kExhausted);
  EXPECT_EQ(status.reason(), "NO_SPACE");
  EXPECT_NE(status.message().find("/dev/full"), std::string::npos);
}

TEST(PosixFileSystem, OtherErrorsAreIoErrorsThatNameThePath) {
  TemporaryDirectory directory;
  PosixFileSystem files;
  auto opened = files.open(directory.path(), OpenMode::kRead);
  ASSERT_TRUE(opened);
  std::string data;
  const Status status = (*opened)->read_at(0, 1, data);
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_EQ(status.reason(), "IO_ERROR");
  EXPECT_NE(status.message().find(directory.path()), std::string::npos);
}

TEST(PosixFileSystem, AtomicReplacementLeavesNoTemporaryFile) {
  TemporaryDirectory directory;
  PosixFileSystem files;
  ASSERT_TRUE(write_file_atomically(files, directory.at("a"), "one").is_ok());
  ASSERT_TRUE(write_file_atomically(files, directory.at("a"), "two").is_ok());
  EXPECT_EQ(read_file(files, directory.at("a"), 10).value(), "two");
  EXPECT_EQ(files.list(directory.path()).value(), (std::vector<std::string>{"a"}));
}

TEST(DirectoryLock, ADirectoryIsHeldByOneOwner) {
  TemporaryDirectory directory;
  {
    auto held = DirectoryLock::acquire(directory.path());
    ASSERT_TRUE(held);
    auto second = DirectoryLock::acquire(directory.path());
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().reason(), "DIRECTORY_IN_USE");
  }
  EXPECT_TRUE(DirectoryLock::acquire(directory.path())) << "released by the owner's end";
}

}  // namespace
}  // namespace uccp::runtime
