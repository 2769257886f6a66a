// The methods of Administration about backups: TriggerBackup, GetBackup, ListBackups, RestoreBackup. docs/backup.md.
//
// Served by the leader of the core group, from its backup directory. One job at a time, on the executor `worker`,
// which is blocked for as long as a job takes. Handlers are callable from any thread. Must outlive every call; stop()
// first.
#pragma once

#include <atomic>
#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "base/executor.h"
#include "base/metrics.h"
#include "call/handler.h"
#include "call/listing.h"
#include "services/backup/backup_jobs.h"
#include "uccp/v1/admin.pb.h"

namespace uccp::backup {

// Everything must outlive the service.
struct BackupEnvironment {
  machine::Proposer& proposer;
  BackupJobs& jobs;
  Archive& archive;
  Executor& worker;  // where jobs block
  Executor& reads;
  const Clock& clock;
  Random& random;
  const call::PageTokenSigner& page_tokens;
  NodeId node;
  std::string cluster_id;
  std::string program_version;
  MetricsRegistry& metrics;
};

class BackupService {
 public:
  explicit BackupService(BackupEnvironment environment);
  void add_handlers(call::HandlerTable& handlers);
  // Begins a backup if none is under way and the newest is older than `every_ms`. Any thread.
  void begin_if_due(int64_t every_ms, int64_t retention_ms);
  // Ends the job under way soon; what it did not finish does not count.
  void stop() { stopping_.store(true); }

 private:
  void trigger(const call::CallPtr& call, const std::string& bytes);
  void begin(const call::CallPtr& call, const v1::TriggerBackupRequest& request, const std::string& id,
             const std::string& first_id);
  void get(const call::CallPtr& call, const std::string& id);
  void list(const call::CallPtr& call, const std::string& bytes);
  void answer_list(const call::CallPtr& call, const call::ListQuery& query);
  void restore(const call::CallPtr& call, const std::string& bytes);
  void check_and_restore(const call::CallPtr& call, const std::string& bytes, const v1::RestoreBackupRequest& request);
  void replace_state(const call::CallPtr& call, const std::string& bytes, const Manifest& manifest,
                     const std::string& restore_id);

  std::string new_id(const std::string& prefix);
  Manifest about(const v1::TriggerBackupRequest& request, const std::string& id) const;
  // Answers the backup as it is under way; none if another one is.
  std::optional<v1::Backup> start(const Manifest& manifest);
  void run(const Manifest& manifest);
  v1::Backup shown(const Manifest& manifest) const;
  // A job that is under way or failed; none for the others.
  std::optional<v1::Backup> job(const std::string& id);
  bool take_turn(const v1::Backup& backup);
  Tell teller(const std::string& id);
  void end_turn(const std::string& id, v1::BackupStatus status, const std::string& reason, bool keep);
  void remove_expired();

  const BackupEnvironment env_;
  Gauge& last_success_;
  Counter& failures_;
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::map<std::string, v1::Backup> jobs_;  // under way, failed, or restored, by id
  std::string running_;                     // id of the one under way
};

}  // namespace uccp::backup
