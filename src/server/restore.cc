#include "server/restore.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "machine/restore.h"
#include "node/identity.h"
#include "server/backup_side.h"
#include "server/encryption.h"
#include "server/log_choice.h"
#include "services/backup/archive.h"
#include "services/cluster/cluster_state.h"
#include "services/objects/blob_store.h"
#include "storage/rocksdb/rocks_kv.h"

namespace uccp::server {
namespace {

// More entries than a cluster writes between two backups. Fencing tokens and cursors are indexes.
constexpr uint64_t kIndexGap = 1'000'000'000;
constexpr std::string_view kMarker = "/restoring";
// The state is built in the slot that a new directory does not use.
constexpr machine::StateSlot kSlot = 1;

struct Source {
  std::unique_ptr<backup::Archive> archive;
  backup::Manifest manifest;
};

Result<Source> open_source(FileSystem& files, const Config& config, std::string from, Random& random) {
  while (from.ends_with('/')) from.pop_back();
  const size_t slash = from.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : from.substr(0, slash);
  const std::string id = slash == std::string::npos ? from : from.substr(slash + 1);
  // Without a configured key: that of the data directory which the backups are in.
  const size_t above = directory.rfind('/');
  const BackupPlace place = backup_place(config, above == std::string::npos ? "." : directory.substr(0, above));
  UCCP_TRY(const SecretKey key, load_backup_key(files, place, false, random));
  Source source;
  source.archive = std::make_unique<backup::Archive>(files, directory, key, random);
  UCCP_TRY(source.manifest, source.archive->read(id));
  UCCP_RETURN_IF_ERROR(source.archive->verify(source.manifest, [](uint64_t) { return true; }));
  return source;
}

std::string told(const backup::Manifest& manifest) {
  std::string text = fmt::format("backup {} of cluster {}, {} bytes, sha256 {}\n", manifest.id, manifest.cluster_id,
                                 manifest.bytes(), manifest.sha256());
  for (const auto& part : manifest.groups) {
    text += fmt::format("  group {} at index {}, {} bytes\n", part.name, part.position.index.value, part.sum.size);
  }
  return text + fmt::format("  {} blobs\n", manifest.blobs.size());
}

Status check_empty(FileSystem& files, const std::string& directory) {
  for (const char* name : {"/identity", "/log", "/state", "/blobs"}) {
    UCCP_TRY(const bool exists, files.exists(directory + name));
    if (!exists) continue;
    return Status(Code::kFailedPrecondition, "DATA_DIR_NOT_EMPTY",
                  directory + " has a node's data already (" + (name + 1) +
                      "); restore into an empty directory, or into "
                      "the running cluster with: uccp-cli backup restore");
  }
  return {};
}

Result<LogPosition> restore_group(storage::Kv& kv, const Source& source, const backup::GroupPart& part) {
  const cluster::ClusterState cluster;
  const auto tables = cluster.tables_of_the_cluster();
  machine::StateReplacement replacement(part.group, kv, kSlot, {tables.begin(), tables.end()});
  UCCP_TRY(auto file, source.archive->open_group(source.manifest, part));
  while (true) {
    UCCP_TRY(const auto chunk, file->next());
    if (!chunk) break;
    UCCP_RETURN_IF_ERROR(replacement.add(*chunk));
  }
  const LogPosition position{part.position.term, LogIndex(part.position.index.value + kIndexGap)};
  UCCP_RETURN_IF_ERROR(replacement.finish({.position = position, .id = source.manifest.id}));
  return position;
}

Status fill(FileSystem& files, const Config& config, const RestoreOptions& options, const Source& source,
            const Clock& clock, Random& random) {
  const std::string cluster_id = options.cluster_id.empty() ? source.manifest.cluster_id : options.cluster_id;
  UCCP_TRY(const auto identity, node::open_identity(files, options.data_dir, options.node, cluster_id, random));
  UCCP_RETURN_IF_ERROR(files.make_directories(options.data_dir + "/log"));
  UCCP_RETURN_IF_ERROR(files.make_directories(options.data_dir + "/state"));
  UCCP_TRY(const auto encryption, DataEncryption::open(files, config, options.data_dir, clock, random));
  UCCP_TRY(auto kv, storage::RocksKv::open(options.data_dir + "/state/kv", {.encryption = encryption->rocks()}));
  UCCP_RETURN_IF_ERROR(node::claim_state(*kv, options.data_dir + "/state", identity));
  MetricsRegistry metrics;
  UCCP_TRY(LogOptions log_chosen, log_options(config));
  log_chosen.encryption = encryption->rocks();
  UCCP_TRY(auto log, open_log(encryption->files(), options.data_dir + "/log", identity, log_chosen, metrics));
  for (const auto& part : source.manifest.groups) {
    UCCP_TRY(const LogPosition position, restore_group(*kv, source, part));
    UCCP_RETURN_IF_ERROR(log->set_hard_state(part.group, {position.term, NodeId(), position.index}));
    UCCP_RETURN_IF_ERROR(log->truncate_before(part.group, position));
  }
  UCCP_RETURN_IF_ERROR(kv->flush());
  UCCP_RETURN_IF_ERROR(log->close());
  UCCP_TRY(const auto blobs, objects::DirectoryBlobStore::open(encryption->files(), options.data_dir + "/blobs"));
  return source.archive->restore_blobs(source.manifest, *blobs, [](uint64_t) { return true; });
}

}  // namespace

Result<std::string> verify_backup(FileSystem& files, const Config& config, const std::string& from, Random& random) {
  UCCP_TRY(const Source source, open_source(files, config, from, random));
  return told(source.manifest);
}

Result<std::string> restore_directory(FileSystem& files, const Config& config, const RestoreOptions& options,
                                      const Clock& clock, Random& random) {
  UCCP_TRY(const Source source, open_source(files, config, options.from, random));
  if (source.manifest.feature_level > machine::kFeatureLevelMax) {
    return fail(Code::kFailedPrecondition, "FEATURE_LEVEL", "the backup was made by a later version; start that one");
  }
  UCCP_RETURN_IF_ERROR(files.make_directories(options.data_dir));
  UCCP_RETURN_IF_ERROR(check_restored(files, options.data_dir));
  UCCP_RETURN_IF_ERROR(check_empty(files, options.data_dir));
  const std::string marker = options.data_dir + std::string(kMarker);
  UCCP_RETURN_IF_ERROR(write_file_atomically(files, marker, source.manifest.id + "\n"));
  UCCP_RETURN_IF_ERROR(fill(files, config, options, source, clock, random));
  UCCP_RETURN_IF_ERROR(files.remove(marker));
  UCCP_RETURN_IF_ERROR(files.sync_directory(options.data_dir));
  const int64_t age_s = (clock.wall().us - source.manifest.created_us) / 1'000'000;
  return told(source.manifest) +
         fmt::format("restored into {} as n{}; the backup is {} s old\n", options.data_dir, options.node.value, age_s);
}

Status check_restored(FileSystem& files, const std::string& data_dir) {
  UCCP_TRY(const bool unfinished, files.exists(data_dir + std::string(kMarker)));
  if (!unfinished) return {};
  return Status(Code::kFailedPrecondition, "RESTORE_UNFINISHED",
                "a restore into " + data_dir + " did not come to its end; clear the directory and restore again");
}

}  // namespace uccp::server
