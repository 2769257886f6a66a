// MemoryKv: Kv in memory. In simulation it stands for RocksDB: a crash reverts it to its last flush.
#pragma once

#include <memory>
#include <string>

#include "base/file_system.h"
#include "storage/kv.h"
#include "storage/memory/persistent_map.h"

namespace uccp::storage {

class MemoryKv final : public Kv {
 public:
  // Checkpoints go to `files`, which must outlive the Kv; without one, checkpoint() is refused as unimplemented.
  explicit MemoryKv(FileSystem* files = nullptr) : files_(files) {}

  // A Kv with the content of a checkpoint, flushed. Errors: not_found; corruption CHECKPOINT_DAMAGED.
  static Result<std::unique_ptr<MemoryKv>> open(FileSystem& files, const std::string& directory);

  Status write(const KvBatch& batch) override;
  Status erase_range(std::string_view from, std::string_view to) override;
  std::shared_ptr<const KvView> view() override;
  Status flush() override;
  Status checkpoint(const std::string& directory) override;
  uint64_t size_bytes() override { return map_.bytes(); }

  // Reverts to the last flush. Views made before stay what they are.
  void crash();
  uint64_t flush_count() const { return flush_count_; }

 private:
  FileSystem* const files_;
  PersistentMap map_;
  PersistentMap::Root flushed_;
  uint64_t flushed_bytes_ = 0;
  uint64_t flushed_size_ = 0;
  uint64_t flush_count_ = 0;
};

}  // namespace uccp::storage
