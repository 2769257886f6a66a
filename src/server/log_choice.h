// Which LogStore a node keeps its log in, by configuration.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>

#include "base/file_system.h"
#include "base/metrics.h"
#include "server/config.h"
#include "storage/compression.h"
#include "storage/log_store.h"
#include "storage/rocksdb/rocks_encryption.h"

namespace uccp::server {

enum class LogKind : uint8_t { kWal, kRocksDb, kLmdb };

struct LogOptions {
  LogKind kind = LogKind::kWal;
  storage::CompressionOptions compression;
  std::set<GroupId> own;  // groups whose log is not in the shared store
  // Of RocksDB's files. Those of the write-ahead log are encrypted by the file system that is passed in; LMDB's cannot
  // be.
  storage::RocksEncryption encryption;
};

// The groups of a node by name.
const std::map<std::string, GroupId>& group_names();

// The keys log_store, log_compression, log_compression_above and own_log_groups. Errors: invalid CONFIG_INVALID.
Result<LogOptions> log_options(const Config& config);

// Opens the logs in `directory`, which must exist; logs of groups that moved are brought where they belong. One that
// was made with another kind is refused: failed_precondition LOG_STORE_MISMATCH. Other errors are those of the store.
Result<std::unique_ptr<storage::LogStore>> open_log(FileSystem& files, const std::string& directory,
                                                    const storage::StoreIdentity& identity, const LogOptions& options,
                                                    MetricsRegistry& metrics);

}  // namespace uccp::server
