#include "storage/rocksdb/rocks_log_table.h"

#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

#include "storage/rocksdb/rocks_status.h"

namespace uccp::storage {
namespace {

constexpr size_t kInfoLogBytesMax = 1u << 20;
constexpr size_t kInfoLogsKept = 2;

rocksdb::Options database_options(const RocksLogTable::Options& options) {
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(options.block_cache_bytes);
  table.format_version = 5;
  table.checksum = rocksdb::kxxHash64;

  rocksdb::Options result;
  result.create_if_missing = true;
  result.paranoid_checks = true;
  // A batch that a crash cut off was never acknowledged. Anything else that is wrong has to be seen.
  result.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  result.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  result.compression = best_compression();
  result.write_buffer_size = options.write_buffer_bytes;
  result.max_open_files = options.open_files_max;
  result.max_background_jobs = 2;
  result.max_log_file_size = kInfoLogBytesMax;
  result.keep_log_file_num = kInfoLogsKept;
  result.info_log_level = rocksdb::WARN_LEVEL;
  result.stats_dump_period_sec = 0;
  result.stats_persist_period_sec = 0;
  return result;
}

}  // namespace

class RocksLogTable::Database {
 public:
  std::string directory;
  std::unique_ptr<rocksdb::Env> env;  // of an encrypted one
  std::unique_ptr<rocksdb::DB> db;
};

RocksLogTable::RocksLogTable(std::unique_ptr<Database> database) : database_(std::move(database)) {}
RocksLogTable::~RocksLogTable() = default;

Result<std::unique_ptr<RocksLogTable>> RocksLogTable::open(const std::string& directory, const Options& options) {
  auto database = std::make_unique<Database>();
  database->directory = directory;
  rocksdb::DB* db = nullptr;
  rocksdb::Options opening = database_options(options);
  if (options.encryption.keys != nullptr) {
    database->env = encrypted_env(options.encryption);
    opening.env = database->env.get();
  }
  const auto status = rocksdb::DB::Open(opening, directory, &db);
  if (status.IsCorruption()) {
    return fail(Code::kCorruption, "LOG_DAMAGED",
                "the log in " + directory + " is damaged: " + status.ToString() +
                    ". Remove the node from the cluster, clear its data directory and add it again; on a single node "
                    "restore a backup");
  }
  if (!status.ok()) return fail(to_status(status, "opening the log in " + directory + " failed"));
  database->db.reset(db);
  return std::unique_ptr<RocksLogTable>(new RocksLogTable(std::move(database)));
}

Status RocksLogTable::commit(const TableBatch& batch) {
  rocksdb::WriteBatch writes;
  for (const auto& range : batch.erased) {
    UCCP_RETURN_IF_ERROR(to_status(writes.DeleteRange(range.from, range.to), "building a batch failed"));
  }
  for (const auto& [key, value] : batch.puts) {
    UCCP_RETURN_IF_ERROR(to_status(writes.Put(key, value), "building a batch failed"));
  }
  rocksdb::WriteOptions options;
  options.sync = true;
  const auto status = database_->db->Write(options, &writes);
  if (status.IsNoSpace()) {
    // RocksDB does not say how much of it was written, so it is not to be tried again.
    return Status(Code::kUnavailable, "IO_ERROR",
                  "writing to the log in " + database_->directory + ": " + status.ToString() +
                      ". Free disk space and restart the node");
  }
  return to_status(status, "writing to the log in " + database_->directory);
}

Status RocksLogTable::scan(std::string_view from, std::string_view to, const Row& row) {
  const rocksdb::Slice upper = slice(to);
  rocksdb::ReadOptions options;
  options.iterate_upper_bound = &upper;
  const std::unique_ptr<rocksdb::Iterator> at(database_->db->NewIterator(options));
  for (at->Seek(slice(from)); at->Valid(); at->Next()) {
    if (!row(view_of(at->key()), view_of(at->value()))) break;
  }
  return to_status(at->status(), "reading the log in " + database_->directory);
}

uint64_t RocksLogTable::size_bytes() {
  uint64_t files = 0;
  uint64_t memory = 0;
  database_->db->GetIntProperty(rocksdb::DB::Properties::kTotalSstFilesSize, &files);
  database_->db->GetIntProperty(rocksdb::DB::Properties::kSizeAllMemTables, &memory);
  return files + memory;
}

}  // namespace uccp::storage
