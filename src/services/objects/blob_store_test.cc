#include "services/objects/blob_store.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/bytes.h"
#include "base/hash.h"
#include "runtime/posix_file_system.h"

namespace uccp::objects {
namespace {

class BlobStoreTest : public testing::Test {
 protected:
  BlobStoreTest() {
    std::string name = testing::TempDir() + "uccp_blob_XXXXXX";
    directory_ = mkdtemp(name.data());
    open();
  }
  ~BlobStoreTest() override { std::filesystem::remove_all(directory_); }

  void open() {
    auto store = DirectoryBlobStore::open(files_, directory_);
    ASSERT_TRUE(store) << store.error().to_string();
    store_ = std::move(*store);
  }
  size_t files_in_tmp() { return files_.list(directory_ + "/tmp")->size(); }

  runtime::PosixFileSystem files_;
  std::string directory_;
  std::unique_ptr<DirectoryBlobStore> store_;
};

TEST_F(BlobStoreTest, ContentIsNamedByItsHashAndReadInRanges) {
  auto writer = store_->begin_put();
  ASSERT_TRUE(writer);
  ASSERT_TRUE((*writer)->append("hello ").is_ok());
  ASSERT_TRUE((*writer)->append("world").is_ok());
  auto info = (*writer)->finish();
  ASSERT_TRUE(info);
  EXPECT_EQ(info->sha256, to_hex(sha256("hello world")));
  EXPECT_EQ(info->size, 11u);
  EXPECT_EQ(*store_->read(info->sha256, 6, 100), "world");
  EXPECT_EQ(*store_->read(info->sha256, 11, 100), "");
  EXPECT_EQ(store_->read(info->sha256, 12, 1).error().reason(), "BLOB_OFFSET_INVALID");
  EXPECT_EQ(*store_->stat(info->sha256), *info);
  EXPECT_EQ(files_in_tmp(), 0u);
}

TEST_F(BlobStoreTest, AWrongDigestStoresNothing) {
  auto writer = store_->begin_put();
  ASSERT_TRUE((*writer)->append("abc").is_ok());
  auto info = (*writer)->finish(to_hex(sha256("abd")));
  ASSERT_FALSE(info);
  EXPECT_EQ(info.error().reason(), "BLOB_DIGEST_MISMATCH");
  writer->reset();
  EXPECT_FALSE(*store_->exists(to_hex(sha256("abc"))));
  EXPECT_EQ(files_in_tmp(), 0u);
}

TEST_F(BlobStoreTest, AbandonedWritesAreGoneAlsoAfterACrash) {
  {
    auto writer = store_->begin_put();
    ASSERT_TRUE((*writer)->append("x").is_ok());
  }
  EXPECT_EQ(files_in_tmp(), 0u);
  std::ofstream(directory_ + "/tmp/put-7") << "left by a dead process";
  open();
  EXPECT_EQ(files_in_tmp(), 0u);
}

TEST_F(BlobStoreTest, ConcurrentPutsOfTheSameContentAreOneBlob) {
  const std::string content(1 << 20, 'z');
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 5; ++n) EXPECT_TRUE(store_->put(content));
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(store_->list("", 10)->size(), 1u);
  EXPECT_TRUE(store_->verify(to_hex(sha256(content))).is_ok());
  EXPECT_EQ(files_in_tmp(), 0u);
}

TEST_F(BlobStoreTest, ListGoesOnBehindAnIdAndRemoveIsIdempotent) {
  std::vector<std::string> ids;
  for (int i = 0; i < 20; ++i) ids.push_back(store_->put(std::to_string(i))->sha256);
  std::ranges::sort(ids);
  std::vector<std::string> listed;
  for (;;) {
    auto page = store_->list(listed.empty() ? "" : listed.back(), 3);
    ASSERT_TRUE(page);
    if (page->empty()) break;
    listed.insert(listed.end(), page->begin(), page->end());
  }
  EXPECT_EQ(listed, ids);
  EXPECT_TRUE(store_->remove(ids[0]).is_ok());
  EXPECT_TRUE(store_->remove(ids[0]).is_ok());
  EXPECT_EQ(store_->stat(ids[0]).error().reason(), "BLOB_NOT_FOUND");
}

TEST_F(BlobStoreTest, IdsThatAreNoHashesReachNoFile) {
  for (const char* id : {"", "../../etc/passwd", "ABC", "zz"}) {
    EXPECT_EQ(store_->read(id, 0, 1).error().reason(), "BLOB_ID_INVALID");
    EXPECT_EQ(store_->remove(id).reason(), "BLOB_ID_INVALID");
  }
}

TEST_F(BlobStoreTest, DamageIsFoundByVerifyAndMendedByPut) {
  const std::string id = store_->put("precious")->sha256;
  std::ofstream(store_->path_of(id)) << "rotten!!";
  EXPECT_EQ(store_->verify(id).reason(), "BLOB_DIGEST_MISMATCH");
  ASSERT_TRUE(store_->put("precious"));
  EXPECT_TRUE(store_->verify(id).is_ok());
}

}  // namespace
}  // namespace uccp::objects
