// Backups in a directory: what is written is read, and whatever differs from it is refused. The bytes are those of
// docs/formats/backup.md.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>

#include "base/bytes.h"
#include "runtime/posix_file_system.h"
#include "services/backup/archive.h"
#include "storage/memory/memory_kv.h"

namespace uccp::backup {
namespace {

const Progress kGoOn = [](uint64_t) { return true; };
constexpr GroupId kGroup{1};

SecretKey key_of(char digit) { return *SecretKey::parse(std::string(64, digit)); }

class BackupArchive : public testing::Test {
 protected:
  BackupArchive() {
    std::string name = testing::TempDir() + "/uccp_backup_XXXXXX";
    base_ = mkdtemp(name.data());
    store_ = std::move(*objects::DirectoryBlobStore::open(files_, base_ + "/store"));
    put("a", "1");
    put("b", std::string(5000, 'x'));
  }
  ~BackupArchive() override { std::filesystem::remove_all(base_); }

  Archive archive(char key = 'a') { return {files_, base_ + "/backups", key_of(key), random_}; }

  void put(const std::string& key, const std::string& value) {
    storage::KvBatch batch;
    batch.put(machine::group_prefix(kGroup) + key, value);
    ASSERT_TRUE(kv_.write(batch).is_ok());
    digest_.add(key, value);
  }
  machine::SnapshotReader reader() {
    machine::SnapshotHeader header{kGroup, {Term(2), LogIndex(3)}, "m", 1, digest_};
    return {header, machine::GroupView(kGroup, kv_.view(), LogIndex(3), 0), {.chunk_bytes = 1000}};
  }
  Result<Manifest> make(Archive& to, const std::string& id) {
    UCCP_TRY(auto writer, ArchiveWriter::begin(to, id));
    UCCP_RETURN_IF_ERROR(writer->add_group("core", reader(), kGoOn));
    UCCP_RETURN_IF_ERROR(writer->add_blobs(*store_, kGoOn));
    Manifest about{.cluster_id = "c1", .node = NodeId(1), .program_version = "1.0.0", .created_us = 10 + ++made_};
    about.labels["why"] = "test";
    return writer->finish(std::move(about));
  }
  std::string file(const std::string& id, const std::string& name) { return base_ + "/backups/" + id + "/" + name; }
  // Any of the errors that say that the backup must not be used.
  Status use(Archive& from, const std::string& id) {
    auto manifest = from.read(id);
    return manifest ? from.verify(*manifest, kGoOn) : manifest.error();
  }
  std::string content(const std::string& path) { return *read_file(files_, path, 1 << 24); }
  void write(const std::string& path, const std::string& bytes) {
    ASSERT_TRUE(write_file_atomically(files_, path, bytes).is_ok());
  }

  runtime::PosixFileSystem files_;
  SeededRandom random_{1};
  std::string base_;
  std::unique_ptr<objects::DirectoryBlobStore> store_;
  storage::MemoryKv kv_;
  Digest digest_;
  int64_t made_ = 0;
};

TEST_F(BackupArchive, WhatWasWrittenIsListedReadAndVerified) {
  ASSERT_TRUE(store_->put("the content of a blob"));
  Archive to = archive();
  const auto first = make(to, "backup_1");
  ASSERT_TRUE(first) << first.error().to_string();
  const auto second = make(to, "backup_2");
  ASSERT_TRUE(second);
  const auto listed = to.list();
  ASSERT_TRUE(listed);
  EXPECT_EQ(*listed, (std::vector<Manifest>{*second, *first}));
  EXPECT_TRUE(to.verify(*first, kGoOn).is_ok());
  EXPECT_EQ(first->groups.size(), 1u);
  EXPECT_EQ(first->groups[0].digest, digest_);
  EXPECT_EQ(first->blobs.size(), 1u);
  // Nothing of it can be read on the disk.
  for (const char* name : {"manifest", "group-core"}) {
    EXPECT_EQ(content(file("backup_1", name)).find("xxxx"), std::string::npos);
    EXPECT_EQ(content(file("backup_1", name)).find("core"), std::string::npos);
  }
  // The state comes back chunk by chunk, the blob as it was.
  auto group = to.open_group(*first, first->groups[0]);
  ASSERT_TRUE(group);
  storage::MemoryKv copy;
  machine::SnapshotWriter writer(kGroup, copy, 0);
  while (auto chunk = *(*group)->next()) ASSERT_TRUE(writer.add(*chunk).is_ok());
  EXPECT_TRUE(writer.complete());
  EXPECT_EQ(*copy.view()->get(machine::group_prefix(kGroup) + "a"), "1");
  auto other = std::move(*objects::DirectoryBlobStore::open(files_, base_ + "/other"));
  ASSERT_TRUE(to.restore_blobs(*first, *other, kGoOn).is_ok());
  EXPECT_EQ(*other->read(first->blobs[0].sha256, 0, 100), "the content of a blob");
}

TEST_F(BackupArchive, ABlobThatAnEarlierBackupHasIsLinked) {
  const auto blob = store_->put(std::string(10'000, 'b'));
  Archive to = archive();
  ASSERT_TRUE(make(to, "backup_1") && make(to, "backup_2"));
  struct stat info{};
  ASSERT_EQ(::stat(file("backup_2", "blobs/" + blob->sha256).c_str(), &info), 0);
  EXPECT_EQ(info.st_nlink, 2u);
  ASSERT_TRUE(to.remove("backup_1").is_ok());
  EXPECT_TRUE(use(to, "backup_2").is_ok());
  EXPECT_EQ(to.list()->size(), 1u);
}

TEST_F(BackupArchive, EveryChangedByteAndEveryCutIsRefused) {
  const auto blob = store_->put("a blob");
  Archive to = archive();
  ASSERT_TRUE(make(to, "backup_1"));
  for (const std::string& name : {std::string("manifest"), std::string("group-core"), "blobs/" + blob->sha256}) {
    const std::string path = file("backup_1", name);
    const std::string good = content(path);
    for (size_t at = 0; at < good.size(); at += good.size() > 500 && at > 100 ? 37 : 1) {
      std::string bad = good;
      bad[at] ^= 1;
      write(path, bad);
      EXPECT_FALSE(use(to, "backup_1").is_ok()) << name << " at " << at;
      write(path, good.substr(0, at));
      EXPECT_EQ(use(to, "backup_1").code(), Code::kCorruption) << name << " cut at " << at;
    }
    write(path, good + "x");
    EXPECT_EQ(use(to, "backup_1").reason(), "BACKUP_DAMAGED") << name;
    ASSERT_TRUE(files_.remove(path).is_ok());
    EXPECT_FALSE(use(to, "backup_1").is_ok()) << name;
    write(path, good);
    EXPECT_TRUE(use(to, "backup_1").is_ok());
  }
}

TEST_F(BackupArchive, FilesOfAnotherBackupAreRefused) {
  Archive to = archive();
  ASSERT_TRUE(make(to, "backup_1"));
  put("c", "2");
  ASSERT_TRUE(make(to, "backup_2"));
  const std::string group = content(file("backup_1", "group-core"));
  write(file("backup_1", "group-core"), content(file("backup_2", "group-core")));
  EXPECT_EQ(use(to, "backup_1").reason(), "BACKUP_DAMAGED");
  write(file("backup_1", "group-core"), content(file("backup_1", "manifest")));
  EXPECT_EQ(use(to, "backup_1").reason(), "BACKUP_DAMAGED");
  write(file("backup_1", "group-core"), group);
  write(file("backup_1", "manifest"), content(file("backup_2", "manifest")));
  EXPECT_EQ(use(to, "backup_1").reason(), "BACKUP_DAMAGED");
}

TEST_F(BackupArchive, ABackupOfAnotherKeyIsRefusedAndNamesBoth) {
  Archive to = archive('a');
  ASSERT_TRUE(make(to, "backup_1"));
  Archive other = archive('b');
  const Status refused = other.read("backup_1").error();
  EXPECT_EQ(refused.reason(), "BACKUP_KEY_WRONG");
  EXPECT_NE(refused.message().find(to_hex(key_of('a').id())), std::string::npos) << refused.message();
  EXPECT_NE(refused.message().find(to_hex(key_of('b').id())), std::string::npos) << refused.message();
  EXPECT_TRUE(other.list()->empty());
}

TEST_F(BackupArchive, WithoutItsEndItIsNoBackup) {
  Archive to = archive();
  {
    auto writer = ArchiveWriter::begin(to, "backup_1");
    ASSERT_TRUE(writer);
    ASSERT_TRUE((*writer)->add_group("core", reader(), kGoOn).is_ok());
    EXPECT_EQ((*writer)->add_group("work", reader(), [](uint64_t) { return false; }).reason(), "BACKUP_STOPPED");
  }
  EXPECT_TRUE(to.list()->empty());
  EXPECT_EQ(to.read("backup_1").error().reason(), "BACKUP_NOT_FOUND");
  ASSERT_TRUE(to.remove_unfinished().is_ok());
  EXPECT_TRUE(std::filesystem::is_empty(base_ + "/backups"));
  EXPECT_EQ(to.read("../backups").error().reason(), "BACKUP_NOT_FOUND");
}

TEST(BackupFormat, TheManifestIsWhatThePageSays) {
  Manifest m{.id = "b1",
             .cluster_id = "c",
             .node = NodeId(2),
             .program_version = "1",
             .feature_level = 1,
             .created_us = 3,
             .finished_us = 4,
             .expires_us = 5,
             .labels = {{"k", "v"}}};
  const std::string sum(64, 'a');
  m.groups.push_back({GroupId(1), "core", {Term(6), LogIndex(7)}, {8, 9}, "group-core", {10, sum}});
  m.blobs.push_back({sum, 11, 12});
  const std::string sum_hex = "40" + to_hex(sum);
  EXPECT_EQ(to_hex(encode(m)),
            "00000001"
            "026231"
            "0163"
            "0000000000000002"
            "0131"
            "00000001"
            "0000000000000003"
            "0000000000000004"
            "0000000000000005"
            "01"
            "016b"
            "0176"
            "01"
            "0000000000000001"
            "04636f7265"
            "0000000000000006"
            "0000000000000007"
            "0000000000000008"
            "0000000000000009"
            "0a67726f75702d636f7265"
            "000000000000000a" +
                sum_hex + "01" + sum_hex +
                "000000000000000b"
                "000000000000000c");
  EXPECT_EQ(*decode_manifest(encode(m)), m);
  for (const auto& [field, name] : {std::pair{&m.id, "../x"}, {&m.groups[0].file, "a/b"}, {&m.blobs[0].sha256, "zz"}}) {
    const std::string before = std::exchange(*field, name);
    EXPECT_EQ(decode_manifest(encode(m)).error().reason(), "BACKUP_DAMAGED") << name;
    *field = before;
  }
  std::string later = encode(m);
  later[3] = 2;
  EXPECT_EQ(decode_manifest(later).error().reason(), "BACKUP_VERSION_UNSUPPORTED");
}

// Random numbers from a seed make the file the same at each run; opening one that was written once shows that the form
// of header, keys and nonces stays.
TEST_F(BackupArchive, ASealedFileStaysReadable) {
  const std::string path = base_ + "/sealed";
  auto writer = SealedWriter::create(files_, path, SealedKind::kBlob, key_of('a'), random_);
  ASSERT_TRUE(writer && (*writer)->add("piece").is_ok());
  const auto sum = (*writer)->finish();
  ASSERT_TRUE(sum);
  const std::string bytes = content(path);
  EXPECT_EQ(sum->size, bytes.size());
  EXPECT_EQ(sum->sha256, to_hex(sha256(bytes)));
  EXPECT_EQ(to_hex(bytes.substr(0, 13)),
            "5543435042414b0a"
            "00000001"
            "03");
  EXPECT_EQ(to_hex(bytes.substr(13, 8)), to_hex(key_of('a').id()));
  EXPECT_EQ(to_hex(bytes.substr(57, 4)), "00000015");
  EXPECT_EQ(to_hex(bytes.substr(61 + 21, 4)), "80000010");
  const std::string golden_sum = "4a37c1f15062255e6154a9de97c4f6d778bbc553a3a473a848a72a6bb27c81b1";
  EXPECT_EQ(sum->sha256, golden_sum);
}

}  // namespace
}  // namespace uccp::backup
