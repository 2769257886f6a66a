#include "storage/rocksdb/rocks_kv.h"

#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/options.h>
#include <rocksdb/perf_level.h>
#include <rocksdb/slice_transform.h>
#include <rocksdb/table.h>
#include <rocksdb/utilities/checkpoint.h>
#include <rocksdb/write_batch.h>

#include <utility>

#include "base/check.h"
#include "storage/rocksdb/rocks_status.h"

namespace uccp::storage {
namespace {

constexpr size_t kInfoLogBytesMax = 1u << 20;
constexpr size_t kInfoLogsKept = 2;
// Type and lengths of a change in a batch.
constexpr size_t kBatchEntryOverhead = 16;
// Of the write buffer's size, for its bloom filter.
constexpr double kMemtableBloomRatio = 0.05;
constexpr uint64_t kBytesPerSync = 1u << 20;
// Group, slot and table, with which each key of the state begins.
constexpr size_t kTablePrefixBytes = 10;
// The one table of which ranges are erased that begin within it: entries beside the state (machine/kept_entries.h).
constexpr std::string_view kTableWithRanges("\0\x09", 2);

// Keys whose place in the memtable is searched from that of the key before with the same prefix. RocksDB keeps one such
// place for keys and for erased ranges, which are in lists of their own: so a table has either.
class HintedTables final : public rocksdb::SliceTransform {
 public:
  const char* Name() const override { return "uccp.HintedTables"; }
  rocksdb::Slice Transform(const rocksdb::Slice& key) const override { return {key.data(), kTablePrefixBytes}; }
  bool InDomain(const rocksdb::Slice& key) const override {
    constexpr size_t kTableAt = kTablePrefixBytes - kTableWithRanges.size();
    return key.size() >= kTablePrefixBytes &&
           std::string_view(key.data() + kTableAt, kTableWithRanges.size()) != kTableWithRanges;
  }
};

rocksdb::Options database_options(const RocksKv::Options& options) {
  rocksdb::BlockBasedTableOptions table;
  rocksdb::LRUCacheOptions cache;
  cache.capacity = options.block_cache_bytes;
  cache.high_pri_pool_ratio = 0.5;
  table.block_cache = rocksdb::NewLRUCache(cache);
  // Otherwise indexes and filters of all open files stay in memory outside of the cache's limit. In parts, because one
  // of a whole file is larger than what a shard of the cache may hold, and would be read and unpacked for every key.
  table.cache_index_and_filter_blocks = true;
  table.cache_index_and_filter_blocks_with_high_priority = true;
  table.pin_l0_filter_and_index_blocks_in_cache = true;
  table.pin_top_level_index_and_filter = true;
  table.index_type = rocksdb::BlockBasedTableOptions::kTwoLevelIndexSearch;
  table.partition_filters = true;
  table.metadata_block_size = 4096;
  table.enable_index_compression = false;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  table.format_version = 5;
  table.checksum = rocksdb::kxxHash64;

  rocksdb::Options result;
  result.create_if_missing = true;
  result.paranoid_checks = true;
  result.atomic_flush = true;
  result.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  result.compression = best_compression();
  result.write_buffer_size = options.write_buffer_bytes;
  result.max_write_buffer_number = options.write_buffers;
  // Most reads of apply look for keys that are not there; with a bloom filter they do not walk the memtable.
  result.memtable_whole_key_filtering = true;
  result.memtable_prefix_bloom_size_ratio = kMemtableBloomRatio;
  // Rows of one table are written next to each other: numbered ones at its end, the others of a batch in their order.
  // The search for a row's place begins at that of the row before.
  result.memtable_insert_with_hint_prefix_extractor.reset(new HintedTables);
  // One thread writes.
  result.allow_concurrent_memtable_write = false;
  result.max_open_files = options.open_files_max;
  result.max_background_jobs = options.background_jobs;
  result.bytes_per_sync = kBytesPerSync;
  result.level_compaction_dynamic_level_bytes = true;
  result.max_log_file_size = kInfoLogBytesMax;
  result.keep_log_file_num = kInfoLogsKept;
  result.info_log_level = rocksdb::WARN_LEVEL;
  result.stats_dump_period_sec = 0;
  result.stats_persist_period_sec = 0;
  result.avoid_flush_during_shutdown = options.on_close == RocksKv::Options::OnClose::kLose;
  return result;
}

class RocksIterator final : public KvIterator {
 public:
  explicit RocksIterator(std::unique_ptr<rocksdb::Iterator> iterator) : iterator_(std::move(iterator)) {}
  void seek(std::string_view key) override { iterator_->Seek(slice(key)); }
  void seek_before(std::string_view key) override {
    iterator_->SeekForPrev(slice(key));
    if (iterator_->Valid() && view_of(iterator_->key()) == key) iterator_->Prev();
  }
  void next() override { iterator_->Next(); }
  void previous() override { iterator_->Prev(); }
  bool valid() const override { return iterator_->Valid(); }
  std::string_view key() const override { return view_of(iterator_->key()); }
  std::string_view value() const override { return view_of(iterator_->value()); }
  Status status() const override { return to_status(iterator_->status(), "iterating the state failed"); }

 private:
  const std::unique_ptr<rocksdb::Iterator> iterator_;
};

class RocksView final : public KvView {
 public:
  explicit RocksView(rocksdb::DB* database) : database_(database), snapshot_(database) {
    options_.snapshot = snapshot_.snapshot();
  }

  Result<std::optional<std::string>> get(std::string_view key) const override {
    // A pinned value is copied once, into the string that the caller gets.
    rocksdb::PinnableSlice value;
    const auto status = database_->Get(options_, database_->DefaultColumnFamily(), slice(key), &value);
    if (status.IsNotFound()) return std::nullopt;
    if (!status.ok()) return fail(to_status(status, "reading a key of the state failed"));
    return value.ToString();
  }

  std::unique_ptr<KvIterator> iterate() const override {
    return std::make_unique<RocksIterator>(std::unique_ptr<rocksdb::Iterator>(database_->NewIterator(options_)));
  }

 private:
  rocksdb::DB* const database_;
  rocksdb::ManagedSnapshot snapshot_;
  rocksdb::ReadOptions options_;
};

}  // namespace

class RocksKv::Database {
 public:
  std::string directory;
  std::unique_ptr<rocksdb::Env> env;  // of an encrypted one
  std::unique_ptr<rocksdb::DB> db;
  rocksdb::WriteOptions write_options;
};

RocksKv::RocksKv(std::unique_ptr<Database> database) : database_(std::move(database)) {}
RocksKv::~RocksKv() = default;

Result<std::unique_ptr<RocksKv>> RocksKv::open(const std::string& directory, const Options& options) {
  auto database = std::make_unique<Database>();
  database->directory = directory;
  database->write_options.disableWAL = true;
  rocksdb::DB* db = nullptr;
  rocksdb::Options opening = database_options(options);
  if (options.encryption.keys != nullptr) {
    database->env = encrypted_env(options.encryption);
    opening.env = database->env.get();
  }
  const auto status = rocksdb::DB::Open(opening, directory, &db);
  if (!status.ok()) return fail(to_status(status, "opening the state in " + directory + " failed"));
  database->db.reset(db);
  return std::unique_ptr<RocksKv>(new RocksKv(std::move(database)));
}

Status RocksKv::write(const KvBatch& batch) {
  // Counters of this thread that nobody reads.
  rocksdb::SetPerfLevel(rocksdb::PerfLevel::kDisable);
  size_t bytes = 0;
  for (const auto& change : batch.changes()) {
    bytes += change.key.size() + (change.value ? change.value->size() : 0) + kBatchEntryOverhead;
  }
  rocksdb::WriteBatch writes(bytes);
  for (const auto& change : batch.changes()) {
    const auto added = change.value ? writes.Put(change.key, *change.value) : writes.Delete(change.key);
    UCCP_RETURN_IF_ERROR(to_status(added, "building a batch failed"));
  }
  return to_status(database_->db->Write(database_->write_options, &writes), "writing to " + database_->directory);
}

Status RocksKv::erase_range(std::string_view from, std::string_view to) {
  if (to <= from) return {};
  UCCP_CHECK(!HintedTables().InDomain(slice(from)), "only ranges of whole groups or of one table are erased");
  const auto status = database_->db->DeleteRange(database_->write_options, database_->db->DefaultColumnFamily(),
                                                 slice(from), slice(to));
  return to_status(status, "erasing a range in " + database_->directory);
}

std::shared_ptr<const KvView> RocksKv::view() { return std::make_shared<RocksView>(database_->db.get()); }

Status RocksKv::flush() {
  rocksdb::FlushOptions options;
  options.wait = true;
  // Waiting for a slower compaction first would hold the log's segments for no gain.
  options.allow_write_stall = true;
  return to_status(database_->db->Flush(options), "flushing " + database_->directory);
}

Status RocksKv::checkpoint(const std::string& directory) {
  rocksdb::Env* env = database_->db->GetEnv();
  if (env->FileExists(directory).ok()) {
    return Status(Code::kAlreadyExists, "CHECKPOINT_EXISTS", directory + " exists; choose a new directory");
  }
  // What is not in a file yet is in no log either.
  UCCP_RETURN_IF_ERROR(flush());
  rocksdb::Checkpoint* made = nullptr;
  auto status = rocksdb::Checkpoint::Create(database_->db.get(), &made);
  const std::unique_ptr<rocksdb::Checkpoint> checkpoint(made);
  if (status.ok()) status = checkpoint->CreateCheckpoint(directory);
  return to_status(status, "writing a checkpoint to " + directory);
}

uint64_t RocksKv::size_bytes() {
  uint64_t files = 0;
  uint64_t memory = 0;
  database_->db->GetIntProperty(rocksdb::DB::Properties::kTotalSstFilesSize, &files);
  database_->db->GetIntProperty(rocksdb::DB::Properties::kSizeAllMemTables, &memory);
  return files + memory;
}

}  // namespace uccp::storage
