// Which LogStore a node keeps its log in, by configuration.
#pragma once

#include <memory>
#include <string>

#include "base/file_system.h"
#include "base/metrics.h"
#include "server/config.h"
#include "storage/compression.h"
#include "storage/log_store.h"

namespace uccp::server {

enum class LogKind : uint8_t { kWal, kRocksDb, kLmdb };

struct LogOptions {
  LogKind kind = LogKind::kWal;
  storage::CompressionOptions compression;
};

// The keys log_store, log_compression and log_compression_above. Errors: invalid CONFIG_INVALID.
Result<LogOptions> log_options(const Config& config);

// Opens the log in `directory`, which must exist. One that was made with another kind is refused:
// failed_precondition LOG_STORE_MISMATCH. Other errors are those of the store.
Result<std::unique_ptr<storage::LogStore>> open_log(FileSystem& files, const std::string& directory,
                                                    const storage::StoreIdentity& identity, const LogOptions& options,
                                                    MetricsRegistry& metrics);

}  // namespace uccp::server
