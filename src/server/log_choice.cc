#include "server/log_choice.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <optional>

#include "base/log.h"
#include "services/events/bus_rows.h"
#include "storage/lmdb/lmdb_log_table.h"
#include "storage/placed_log_store.h"
#include "storage/rocksdb/rocks_log_table.h"
#include "storage/table_log_store.h"
#include "storage/wal/format.h"
#include "storage/wal/wal_log_store.h"

namespace uccp::server {
namespace {

// The name in the configuration. Stores other than the write-ahead log have a folder of this name in the log's.
constexpr std::string_view kKindNames[] = {"wal", "rocksdb", "lmdb"};

std::string name_of(LogKind kind) { return std::string(kKindNames[static_cast<size_t>(kind)]); }

// A group with a log of its own has it in a folder of the log's, laid out as the log's.
constexpr std::string_view kOwnPrefix = "group-";

std::string own_directory(const std::string& directory, GroupId group) {
  return directory + "/" + std::string(kOwnPrefix) + std::to_string(group.value);
}

// The groups that have a folder of their own.
Result<std::set<GroupId>> groups_with_own(FileSystem& files, const std::string& directory) {
  UCCP_TRY(const auto names, files.list(directory));
  std::set<GroupId> groups;
  for (const std::string& name : names) {
    if (!name.starts_with(kOwnPrefix)) continue;
    uint64_t id = 0;
    const char* end = name.data() + name.size();
    if (std::from_chars(name.data() + kOwnPrefix.size(), end, id).ptr == end) groups.insert(GroupId(id));
  }
  return groups;
}

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

const std::map<std::string, GroupId>& group_names() {
  // The logs of the groups bus-* are their data, and always their own.
  static const std::map<std::string, GroupId> names = {{"core", kCoreGroup}, {"work", kWorkGroup}};
  return names;
}

Result<LogOptions> log_options(const Config& config) {
  const auto& groups = group_names();
  LogOptions options;
  const std::string& kind = config.text("log_store");
  const auto found = std::ranges::find(kKindNames, kind);
  if (found == std::end(kKindNames)) {
    return fail(Code::kInvalid, "CONFIG_INVALID", "log_store '" + kind + "' is none of wal, rocksdb, lmdb");
  }
  options.kind = static_cast<LogKind>(found - std::begin(kKindNames));
  if (options.kind == LogKind::kLmdb && config.is_set("encryption_key_file")) {
    return fail(Code::kInvalid, "CONFIG_INVALID",
                "log_store: lmdb cannot be encrypted; take wal or rocksdb, or unset encryption_key_file");
  }
  const std::string& encoding = config.text("log_compression");
  const auto parsed = storage::parse_encoding(encoding);
  if (!parsed) {
    return fail(Code::kInvalid, "CONFIG_INVALID", "log_compression '" + encoding + "' is none of none, lz4, zstd");
  }
  options.compression = {*parsed, static_cast<uint64_t>(config.integer("log_compression_above"))};
  const std::string& own = config.text("own_log_groups");
  for (size_t at = 0; at < own.size();) {
    const size_t comma = std::min(own.find(',', at), own.size());
    const std::string name = own.substr(at, comma - at);
    const auto group = groups.find(name);
    if (group == groups.end()) {
      std::string known;
      for (const auto& [other, id] : groups) known += (known.empty() ? "" : ", ") + other;
      return fail(Code::kInvalid, "CONFIG_INVALID",
                  "own_log_groups: there is no group '" + name + "'; there are " + known);
    }
    options.own.insert(group->second);
    at = comma + 1;
  }
  const int64_t bus_groups = config.integer("bus_groups");
  for (uint32_t number = 0; number < bus_groups && number < events::kBusGroupsMax; ++number) {
    options.own.insert(events::bus_group(number));
  }
  return options;
}

namespace {

// One store with all that is in a directory.
Result<std::unique_ptr<storage::LogStore>> open_one(FileSystem& files, const std::string& directory,
                                                    const storage::StoreIdentity& identity, const LogOptions& options,
                                                    MetricsRegistry& metrics) {
  UCCP_RETURN_IF_ERROR(check_kind(files, directory, options.kind));
  Counter& saved = storage::saved_bytes_counter(metrics, "log");
  const std::string kind = name_of(options.kind);
  if (options.kind == LogKind::kWal) {
    storage::RecoveryReport report;
    UCCP_TRY(auto store,
             storage::WalLogStore::open(files, directory, identity,
                                        {.compression = options.compression, .saved_bytes = &saved}, report));
    log::info("log opened", {{"store", kind}, {"directory", directory}, {"report", report.to_string()}});
    return std::unique_ptr<storage::LogStore>(std::move(store));
  }
  const std::string inside = directory + "/" + kind;
  std::unique_ptr<storage::DurableTable> table;
  if (options.kind == LogKind::kRocksDb) {
    UCCP_TRY(table, storage::RocksLogTable::open(inside, {.encryption = options.encryption}));
  } else {
    UCCP_RETURN_IF_ERROR(files.make_directories(inside));
    UCCP_TRY(table, storage::LmdbLogTable::open(inside, {}));
  }
  UCCP_RETURN_IF_ERROR(files.sync_directory(directory));
  UCCP_TRY(auto store, storage::TableLogStore::open(std::move(table), inside, identity,
                                                    {.compression = options.compression, .saved_bytes = &saved}));
  log::info("log opened", {{"store", kind}, {"directory", directory}, {"report", store->report()}});
  return std::unique_ptr<storage::LogStore>(std::move(store));
}

}  // namespace

Result<std::unique_ptr<storage::LogStore>> open_log(FileSystem& files, const std::string& directory,
                                                    const storage::StoreIdentity& identity, const LogOptions& options,
                                                    MetricsRegistry& metrics) {
  UCCP_TRY(auto shared, open_one(files, directory, identity, options, metrics));
  UCCP_TRY(const std::set<GroupId> present, groups_with_own(files, directory));
  if (options.own.empty() && present.empty()) return shared;
  storage::PlacedLogStore::Own own, retired;
  std::set<GroupId> all = present;
  all.insert(options.own.begin(), options.own.end());
  for (const GroupId group : all) {
    const std::string inside = own_directory(directory, group);
    UCCP_RETURN_IF_ERROR(files.make_directories(inside));
    UCCP_RETURN_IF_ERROR(files.sync_directory(directory));
    UCCP_TRY(auto store, open_one(files, inside, identity, options, metrics));
    (options.own.contains(group) ? own : retired)[group] = std::move(store);
  }
  UCCP_TRY(auto placed, storage::PlacedLogStore::open(std::move(shared), std::move(own), std::move(retired)));
  for (const GroupId group : present) {
    std::error_code error;
    // What is left is empty; it is tried again at the next start.
    if (!options.own.contains(group)) std::filesystem::remove_all(own_directory(directory, group), error);
  }
  return std::unique_ptr<storage::LogStore>(std::move(placed));
}

}  // namespace uccp::server
