// RocksKv: Kv on RocksDB, the state of a real node.
//
// RocksDB's own log is off: the replicated log is the log. After a crash the map is as of the last flush, or of some
// write after it when RocksDB flushed by itself; the machine keeps its applied index in the same batch and replays from
// there.
//
// One column family; what is written together stays together because a batch goes to one memtable.
#pragma once

#include <memory>
#include <string>

#include "storage/kv.h"
#include "storage/rocksdb/rocks_encryption.h"

namespace uccp::storage {

class RocksKv final : public Kv {
 public:
  struct Options {
    // The defaults keep an idle node under 150 MB.
    uint64_t write_buffer_bytes = 32u << 20;
    int write_buffers = 3;
    uint64_t block_cache_bytes = 32u << 20;
    int open_files_max = 256;
    int background_jobs = 2;
    // Whether the destructor flushes. Tests turn it off to see what a crash leaves.
    enum class OnClose : uint8_t { kFlush, kLose } on_close = OnClose::kFlush;
    RocksEncryption encryption;
  };

  // Opens or creates the map in `directory`; missing parents are an error. One process at a time. Errors: corruption;
  // unavailable IO_ERROR (also if another process has it open); exhausted NO_SPACE.
  static Result<std::unique_ptr<RocksKv>> open(const std::string& directory, const Options& options);
  ~RocksKv() override;

  Status write(const KvBatch& batch) override;
  Status erase_range(std::string_view from, std::string_view to) override;
  std::shared_ptr<const KvView> view() override;
  Status flush() override;
  Status checkpoint(const std::string& directory) override;
  uint64_t size_bytes() override;

 private:
  class Database;
  explicit RocksKv(std::unique_ptr<Database> database);

  std::unique_ptr<Database> database_;
};

}  // namespace uccp::storage
