#include "server/log_choice.h"

#include <algorithm>
#include <optional>

#include "base/log.h"
#include "storage/lmdb/lmdb_log_table.h"
#include "storage/rocksdb/rocks_log_table.h"
#include "storage/table_log_store.h"
#include "storage/wal/format.h"
#include "storage/wal/wal_log_store.h"

namespace uccp::server {
namespace {

// The name in the configuration. Stores other than the write-ahead log have a folder of this name in the log's.
constexpr std::string_view kKindNames[] = {"wal", "rocksdb", "lmdb"};

std::string name_of(LogKind kind) { return std::string(kKindNames[static_cast<size_t>(kind)]); }

// Whose files are in the directory; none if it is empty.
Result<std::optional<LogKind>> kind_in(FileSystem& files, const std::string& directory) {
  UCCP_TRY(const auto names, files.list(directory));
  for (const std::string& name : names) {
    if (storage::wal::parse_segment_name(name)) return LogKind::kWal;
    if (name == name_of(LogKind::kRocksDb)) return LogKind::kRocksDb;
    if (name == name_of(LogKind::kLmdb)) return LogKind::kLmdb;
  }
  return std::nullopt;
}

Status check_kind(FileSystem& files, const std::string& directory, LogKind wanted) {
  UCCP_TRY(const auto found, kind_in(files, directory));
  if (!found || *found == wanted) return {};
  return Status(Code::kFailedPrecondition, "LOG_STORE_MISMATCH",
                "the log in " + directory + " was made with log_store: " + name_of(*found) +
                    ", and the configuration says " + name_of(wanted) + ". Set log_store: " + name_of(*found) +
                    "; to change it, remove the node from the cluster, clear its data directory and add it again");
}

}  // namespace

Result<LogOptions> log_options(const Config& config) {
  LogOptions options;
  const std::string& kind = config.text("log_store");
  const auto found = std::ranges::find(kKindNames, kind);
  if (found == std::end(kKindNames)) {
    return fail(Code::kInvalid, "CONFIG_INVALID", "log_store '" + kind + "' is none of wal, rocksdb, lmdb");
  }
  options.kind = static_cast<LogKind>(found - std::begin(kKindNames));
  const std::string& encoding = config.text("log_compression");
  const auto parsed = storage::parse_encoding(encoding);
  if (!parsed) {
    return fail(Code::kInvalid, "CONFIG_INVALID", "log_compression '" + encoding + "' is none of none, lz4, zstd");
  }
  options.compression = {*parsed, static_cast<uint64_t>(config.integer("log_compression_above"))};
  return options;
}

Result<std::unique_ptr<storage::LogStore>> open_log(FileSystem& files, const std::string& directory,
                                                    const storage::StoreIdentity& identity, const LogOptions& options,
                                                    MetricsRegistry& metrics) {
  UCCP_RETURN_IF_ERROR(check_kind(files, directory, options.kind));
  Counter& saved = storage::saved_bytes_counter(metrics, "log");
  const std::string kind = name_of(options.kind);
  if (options.kind == LogKind::kWal) {
    storage::RecoveryReport report;
    UCCP_TRY(auto store, storage::WalLogStore::open(files, directory, identity,
                                                    {.compression = options.compression, .saved_bytes = &saved}, report));
    log::info("log opened", {{"store", kind}, {"report", report.to_string()}});
    return std::unique_ptr<storage::LogStore>(std::move(store));
  }
  const std::string inside = directory + "/" + kind;
  std::unique_ptr<storage::DurableTable> table;
  if (options.kind == LogKind::kRocksDb) {
    UCCP_TRY(table, storage::RocksLogTable::open(inside, {}));
  } else {
    UCCP_RETURN_IF_ERROR(files.make_directories(inside));
    UCCP_TRY(table, storage::LmdbLogTable::open(inside, {}));
  }
  UCCP_RETURN_IF_ERROR(files.sync_directory(directory));
  UCCP_TRY(auto store, storage::TableLogStore::open(std::move(table), inside, identity,
                                                    {.compression = options.compression, .saved_bytes = &saved}));
  log::info("log opened", {{"store", kind}, {"report", store->report()}});
  return std::unique_ptr<storage::LogStore>(std::move(store));
}

}  // namespace uccp::server
