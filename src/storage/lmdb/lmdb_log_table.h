// LmdbLogTable: the table of a log in LMDB. Each commit is a write transaction, synced before it returns.
#pragma once

#include <memory>
#include <string>

#include "storage/durable_table.h"

namespace uccp::storage {

class LmdbLogTable final : public DurableTable {
 public:
  struct Options {
    // Address space for the table, and so its largest size. The file grows as it is needed.
    uint64_t map_bytes = 64ull << 30;
  };

  // Opens or creates the table in `directory`, which must exist. No other process may have it open. Errors: corruption
  // LOG_DAMAGED; unavailable IO_ERROR.
  static Result<std::unique_ptr<LmdbLogTable>> open(const std::string& directory, const Options& options);
  ~LmdbLogTable() override;

  Status commit(const TableBatch& batch) override;
  Status scan(std::string_view from, std::string_view to, const Row& row) override;
  uint64_t size_bytes() override;

 private:
  class Environment;
  explicit LmdbLogTable(std::unique_ptr<Environment> environment);

  std::unique_ptr<Environment> environment_;
};

}  // namespace uccp::storage
