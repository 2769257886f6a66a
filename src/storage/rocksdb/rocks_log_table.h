// RocksLogTable: the table of a log in RocksDB. Each commit is synced in RocksDB's own log before it returns.
#pragma once

#include <memory>
#include <string>

#include "storage/durable_table.h"
#include "storage/rocksdb/rocks_encryption.h"

namespace uccp::storage {

class RocksLogTable final : public DurableTable {
 public:
  struct Options {
    uint64_t write_buffer_bytes = 32u << 20;
    uint64_t block_cache_bytes = 8u << 20;
    int open_files_max = 64;
    RocksEncryption encryption;
  };

  // Opens or creates the table in `directory`, whose parent must exist. A last batch that a crash cut off is dropped;
  // damage before it is an error. Errors: corruption; unavailable IO_ERROR (also if another process has it open).
  static Result<std::unique_ptr<RocksLogTable>> open(const std::string& directory, const Options& options);
  ~RocksLogTable() override;

  Status commit(const TableBatch& batch) override;
  Status scan(std::string_view from, std::string_view to, const Row& row) override;
  uint64_t size_bytes() override;

 private:
  class Database;
  explicit RocksLogTable(std::unique_ptr<Database> database);

  std::unique_ptr<Database> database_;
};

}  // namespace uccp::storage
