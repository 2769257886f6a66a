// The backups of a node: its key, its directory, the jobs and their thread.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "node/node.h"
#include "runtime/loop.h"
#include "server/config.h"
#include "services/backup/backup_service.h"

namespace uccp::server {

struct BackupPlace {
  std::string directory;
  std::string key_file;
};
// As configured, or in the data directory.
BackupPlace backup_place(const Config& config, const std::string& data_dir);

// The key in a file. Where none is configured it is made. Errors: not_found; invalid KEY_INVALID naming the file.
Result<SecretKey> load_backup_key(FileSystem& files, const BackupPlace& place, bool make, Random& random);

// Everything must outlive it.
struct BackupSideEnvironment {
  FileSystem& files;
  node::Node& node;
  objects::BlobStore& blobs;
  const Clock& clock;
  Random& random;  // the system's
  Executor& reads;
  Executor& timers;
  const call::PageTokenSigner& page_tokens;
  MetricsRegistry& metrics;
  storage::StoreIdentity identity;
  storage::CompressionOptions compression;
  std::vector<backup::BackedGroup> groups;
  int64_t every_ms = 0;      // 0: only when asked
  int64_t retention_ms = 0;  // of those; 0: for ever
};

class BackupSide {
 public:
  // Makes the directory and removes what an earlier process left unfinished there.
  static Result<std::unique_ptr<BackupSide>> open(const Config& config, const std::string& data_dir,
                                                  BackupSideEnvironment environment);
  ~BackupSide();

  void add_handlers(call::HandlerTable& handlers) { service_->add_handlers(handlers); }
  // The job under way ends soon: at its next step, or when the node answers what it waits for.
  void give_up() { service_->stop(); }
  // Ends the thread. After the node stopped, which fails what the job waits for, and while its loops still run.
  void stop();

 private:
  BackupSide(BackupSideEnvironment environment, backup::Archive archive);
  void tick();
  void lead(GroupId group, int tries, std::move_only_function<void(Status)> done);

  const BackupSideEnvironment env_;
  backup::Archive archive_;
  std::unique_ptr<runtime::Loop> worker_;
  std::unique_ptr<backup::BackupJobs> jobs_;
  std::unique_ptr<backup::BackupService> service_;
  // Outlives the last tick, which may come after this.
  const std::shared_ptr<std::atomic<bool>> ticking_ = std::make_shared<std::atomic<bool>>(true);
};

}  // namespace uccp::server
