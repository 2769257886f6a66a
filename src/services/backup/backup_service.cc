#include "services/backup/backup_service.h"

#include <algorithm>

#include "base/log.h"
#include "call/command.h"
#include "machine/resource_id.h"
#include "services/backup/backup_state.h"

namespace uccp::backup {
namespace {

using call::CallPtr;

// Failed jobs that are remembered.
constexpr size_t kJobsKept = 100;

std::string method_name(std::string_view rpc) { return "uccp.v1.Administration/" + std::string(rpc); }

void set_time(google::protobuf::Timestamp* out, int64_t us) {
  out->set_seconds(us / 1'000'000);
  out->set_nanos(static_cast<int32_t>(us % 1'000'000) * 1000);
}

Status running(const std::string& id) {
  return Status(Code::kFailedPrecondition, "BACKUP_RUNNING",
                "backup " + id + " is under way on this node; wait for its end, or look at it with GetBackup");
}

Status invalid_field(const std::string& field, const std::string& what) {
  return Status(Code::kInvalid, "FIELD_INVALID", field + " " + what).with_field(field, what);
}

}  // namespace

BackupService::BackupService(BackupEnvironment environment)
    : env_(std::move(environment)),
      last_success_(env_.metrics.gauge("uccp_backup_last_success_seconds",
                                       "When this node last completed a backup, seconds since 1970; 0: never")),
      failures_(env_.metrics.counter("uccp_backup_failures_total", "Backups and restores that failed on this node")) {}

void BackupService::add_handlers(call::HandlerTable& handlers) {
  handlers.add(method_name("TriggerBackup"),
               [this](const CallPtr& call, const std::string& bytes) { trigger(call, bytes); });
  handlers.add_parsed<v1::GetBackupRequest>(
      method_name("GetBackup"), [this](const CallPtr& call, v1::GetBackupRequest request) { get(call, request.id()); });
  handlers.add(method_name("ListBackups"),
               [this](const CallPtr& call, const std::string& bytes) { list(call, bytes); });
  handlers.add(method_name("RestoreBackup"),
               [this](const CallPtr& call, const std::string& bytes) { restore(call, bytes); });
}

// --- what is under way ----------------------------------------------------------------------------------------------

std::optional<v1::Backup> BackupService::job(const std::string& id) {
  std::lock_guard lock(mutex_);
  const auto found = jobs_.find(id);
  return found == jobs_.end() ? std::nullopt : std::optional(found->second);
}

bool BackupService::take_turn(const v1::Backup& backup) {
  std::lock_guard lock(mutex_);
  if (!running_.empty()) return false;
  running_ = backup.id();
  jobs_[backup.id()] = backup;
  while (jobs_.size() > kJobsKept)
    jobs_.erase(jobs_.begin()->first == running_ ? std::next(jobs_.begin()) : jobs_.begin());
  return true;
}

Tell BackupService::teller(const std::string& id) {
  return [this, id](const std::string& what, uint64_t bytes, uint64_t all) {
    std::lock_guard lock(mutex_);
    v1::Backup& backup = jobs_[id];
    backup.set_status_reason(what);
    backup.set_size(std::max<uint64_t>(backup.size(), bytes));
    if (all > 0) backup.set_progress(std::min(1.0, static_cast<double>(bytes) / static_cast<double>(all)));
  };
}

void BackupService::end_turn(const std::string& id, v1::BackupStatus status, const std::string& reason, bool keep) {
  log::info("a backup job ended", {{"backup", id}, {"status", v1::BackupStatus_Name(status)}, {"reason", reason}});
  std::lock_guard lock(mutex_);
  running_.clear();
  if (!keep) {
    jobs_.erase(id);
    return;
  }
  v1::Backup& backup = jobs_[id];
  backup.set_status(status);
  backup.set_status_reason(reason);
  if (status == v1::BACKUP_STATUS_SUCCEEDED) backup.set_progress(1);
  set_time(backup.mutable_end_time(), env_.clock.wall().us);
}

v1::Backup BackupService::shown(const Manifest& manifest) const {
  v1::Backup backup;
  backup.set_id(manifest.id);
  backup.set_kind(v1::BACKUP_KIND_FULL);
  backup.set_status(v1::BACKUP_STATUS_SUCCEEDED);
  backup.set_target("file://" + env_.archive.directory());
  backup.set_size(manifest.bytes());
  backup.set_sha256(manifest.sha256());
  backup.set_feature_level(static_cast<int32_t>(manifest.feature_level));
  backup.set_encrypted(true);
  backup.set_progress(1);
  for (const GroupPart& part : manifest.groups) {
    if (part.group == kCoreGroup) backup.set_revision(part.position.index.value);
  }
  set_time(backup.mutable_create_time(), manifest.created_us);
  set_time(backup.mutable_end_time(), manifest.finished_us);
  if (manifest.expires_us > 0) set_time(backup.mutable_expire_time(), manifest.expires_us);
  backup.mutable_labels()->insert(manifest.labels.begin(), manifest.labels.end());
  return backup;
}

// --- TriggerBackup --------------------------------------------------------------------------------------------------

Manifest BackupService::about(const v1::TriggerBackupRequest& request, const std::string& id) const {
  Manifest about;
  about.id = id;
  about.cluster_id = env_.cluster_id;
  about.node = env_.node;
  about.program_version = env_.program_version;
  about.created_us = env_.clock.wall().us;
  if (request.has_retention()) about.expires_us = about.created_us + request.retention().seconds() * 1'000'000;
  about.labels.insert(request.labels().begin(), request.labels().end());
  return about;
}

void BackupService::trigger(const CallPtr& call, const std::string& bytes) {
  auto request = call::parse_request<v1::TriggerBackupRequest>(bytes);
  if (!request) return call->finish(request.error());
  if (request->kind() == v1::BACKUP_KIND_INCREMENTAL) {
    return call->finish(invalid_field("kind", "is INCREMENTAL, and only full backups are made"));
  }
  const std::string own = "file://" + env_.archive.directory();
  if (!request->target().empty() && request->target() != own) {
    return call->finish(
        invalid_field("target", "must be empty or " + own + ", the directory that this node is configured with"));
  }
  const std::string id = new_id("backup");
  env_.proposer.propose(kCoreGroup, call::make_envelope(*call, bytes, std::string(kBeginCommand), id),
                        [this, call, request = std::move(*request), id](Result<machine::Applied> applied) {
                          if (!applied) return call->finish(std::move(applied.error()));
                          begin(call, request, id, applied->response);
                        });
}

void BackupService::begin(const CallPtr& call, const v1::TriggerBackupRequest& request, const std::string& id,
                          const std::string& first_id) {
  // The request was sent before.
  if (first_id != id) return get(call, first_id);
  const auto backup = start(about(request, id));
  if (backup) return call->reply(backup->SerializeAsString());
  std::string other;
  {
    std::lock_guard lock(mutex_);
    other = running_;
  }
  call->finish(running(other));
}

std::string BackupService::new_id(const std::string& prefix) {
  std::lock_guard lock(mutex_);
  return machine::make_id(prefix, env_.clock.wall(), env_.random);
}

std::optional<v1::Backup> BackupService::start(const Manifest& manifest) {
  v1::Backup backup = shown(manifest);
  backup.set_status(v1::BACKUP_STATUS_RUNNING);
  backup.set_status_reason("waiting");
  backup.set_progress(0);
  backup.clear_sha256();
  backup.clear_end_time();
  if (!take_turn(backup)) return std::nullopt;
  env_.worker.post([this, manifest] { run(manifest); });
  return backup;
}

void BackupService::run(const Manifest& manifest) {
  remove_expired();
  const auto made = env_.jobs.create(manifest, teller(manifest.id), [this] { return !stopping_.load(); });
  if (made) {
    last_success_.set(static_cast<double>(env_.clock.wall().us) / 1e6);
    return end_turn(manifest.id, v1::BACKUP_STATUS_SUCCEEDED, "complete and verified", false);
  }
  failures_.add(1);
  (void)env_.archive.remove_unfinished();
  end_turn(manifest.id, v1::BACKUP_STATUS_FAILED, made.error().to_string(), true);
}

void BackupService::begin_if_due(int64_t every_ms, int64_t retention_ms) {
  env_.reads.post([this, every_ms, retention_ms] {
    const auto manifests = env_.archive.list();
    if (!manifests) return;
    const int64_t now_us = env_.clock.wall().us;
    if (!manifests->empty() && now_us - manifests->front().created_us < every_ms * 1000) return;
    v1::TriggerBackupRequest request;
    if (retention_ms > 0) request.mutable_retention()->set_seconds(retention_ms / 1000);
    const Manifest manifest = about(request, new_id("backup"));
    if (!start(manifest)) return;
    machine::Envelope envelope;
    envelope.principal = "system";
    envelope.method = method_name("TriggerBackup");
    envelope.resource = manifest.id;
    envelope.command = kBeginCommand;
    envelope.payload = manifest.id;
    envelope.audited = true;
    env_.proposer.propose(kCoreGroup, std::move(envelope), [](Result<machine::Applied>) {});
  });
}

void BackupService::remove_expired() {
  const auto manifests = env_.archive.list();
  if (!manifests) return;
  for (const Manifest& manifest : *manifests) {
    if (manifest.expires_us == 0 || manifest.expires_us > env_.clock.wall().us) continue;
    const Status removed = env_.archive.remove(manifest.id);
    log::info("an expired backup was removed", {{"backup", manifest.id}, {"outcome", removed.to_string()}});
  }
}

// --- GetBackup, ListBackups -----------------------------------------------------------------------------------------

void BackupService::get(const CallPtr& call, const std::string& id) {
  if (const auto known = job(id)) return call->reply(known->SerializeAsString());
  // From the disk: not on the loop, and not behind a job.
  env_.reads.post([this, call, id] {
    const auto manifest = env_.archive.read(id);
    if (!manifest) return call->finish(manifest.error());
    call->reply(shown(*manifest).SerializeAsString());
  });
}

void BackupService::list(const CallPtr& call, const std::string& bytes) {
  auto query = call::compile_list(*call->method, bytes,
                                  {.signer = &env_.page_tokens,
                                   .now = env_.clock.wall(),
                                   .scope = {call->principal.tenant, ""},
                                   .key_order = "createTime desc"});
  if (!query) return call->finish(query.error());
  env_.reads.post([this, call, query = std::move(*query)] { answer_list(call, query); });
}

void BackupService::answer_list(const CallPtr& call, const call::ListQuery& query) {
  const auto manifests = env_.archive.list();
  if (!manifests) return call->finish(manifests.error());
  // Ids begin with the time they were made at, so they sort by it; the newest comes first.
  std::map<std::string, std::string, std::greater<>> rows;
  for (const Manifest& manifest : *manifests) rows[manifest.id] = shown(manifest).SerializeAsString();
  {
    std::lock_guard lock(mutex_);
    for (const auto& [id, backup] : jobs_) rows[id] = backup.SerializeAsString();
  }
  auto page = call::paginate(query, [&](std::string_view after, const call::VisitRow& visit) {
    auto row = after.empty() ? rows.begin() : rows.upper_bound(std::string(after));
    for (; row != rows.end() && visit(row->first, row->second);) ++row;
  });
  if (!page) return call->finish(page.error());
  call->reply(call::encode_page(*call->method, *page));
}

// --- RestoreBackup --------------------------------------------------------------------------------------------------

void BackupService::restore(const CallPtr& call, const std::string& bytes) {
  auto request = call::parse_request<v1::RestoreBackupRequest>(bytes);
  if (!request) return call->finish(request.error());
  if (request->confirm_cluster_id() != env_.cluster_id) {
    return call->finish(Status(Code::kFailedPrecondition, "CLUSTER_NOT_CONFIRMED",
                               "confirm_cluster_id is '" + request->confirm_cluster_id() + "' and this is cluster '" +
                                   env_.cluster_id + "'; nothing was changed"));
  }
  if (request->has_point_in_time())
    return call->finish(invalid_field("point_in_time", "must be unset: backups hold one moment"));
  if (request->namespaces_size() > 0)
    return call->finish(invalid_field("namespaces", "must be empty: all are restored together"));
  env_.worker.post([this, call, bytes, request = std::move(*request)] { check_and_restore(call, bytes, request); });
}

void BackupService::check_and_restore(const CallPtr& call, const std::string& bytes,
                                      const v1::RestoreBackupRequest& request) {
  auto manifest = env_.archive.read(request.id());
  if (!manifest) return call->finish(manifest.error());
  v1::Backup backup = shown(*manifest);
  backup.set_status(v1::BACKUP_STATUS_RESTORING);
  backup.set_progress(0);
  backup.clear_end_time();
  if (!take_turn(backup)) return call->finish(running(request.id()));
  const Status checked = env_.jobs.check(*manifest, teller(manifest->id), [this] { return !stopping_.load(); });
  if (!checked.is_ok() || request.validate_only()) {
    end_turn(manifest->id, v1::BACKUP_STATUS_SUCCEEDED, checked.is_ok() ? "verified" : checked.to_string(), false);
    if (!checked.is_ok()) return call->finish(checked);
    backup = shown(*manifest);
    backup.set_status_reason("verified; nothing was changed");
    return call->reply(backup.SerializeAsString());
  }
  const std::string restore_id = new_id("restore");
  env_.proposer.propose(
      kCoreGroup, call::make_envelope(*call, bytes, std::string(kRestoreCommand), restore_id),
      [this, call, bytes, manifest = std::move(*manifest), backup, restore_id](Result<machine::Applied> applied) {
        // The request was sent before: what came of it is known, or is in the directory.
        const bool repeated = applied && applied->response != restore_id;
        if (!applied || repeated) {
          end_turn(manifest.id, v1::BACKUP_STATUS_SUCCEEDED,
                   repeated ? "asked for before" : applied.error().to_string(), false);
          return repeated ? get(call, manifest.id) : call->finish(std::move(applied.error()));
        }
        call->reply(backup.SerializeAsString());
        env_.worker.post(
            [this, call, bytes, manifest, restore_id] { replace_state(call, bytes, manifest, restore_id); });
      });
}

void BackupService::replace_state(const CallPtr& call, const std::string& bytes, const Manifest& manifest,
                                  const std::string& restore_id) {
  log::warn("the state is being replaced", {{"backup", manifest.id}, {"restore", restore_id}});
  const Status done =
      env_.jobs.restore(manifest, restore_id, teller(manifest.id), [this] { return !stopping_.load(); });
  if (!done.is_ok()) {
    failures_.add(1);
    return end_turn(manifest.id, v1::BACKUP_STATUS_FAILED, "not restored: " + done.to_string(), true);
  }
  // The trail that was restored ends before this call.
  env_.proposer.propose(kCoreGroup, call::make_envelope(*call, bytes, std::string(kRestoredCommand), restore_id),
                        [](Result<machine::Applied> applied) {
                          if (!applied)
                            log::warn("the restore is not in the audit trail",
                                      {{"error", applied.error().to_string()}});
                        });
  end_turn(manifest.id, v1::BACKUP_STATUS_SUCCEEDED, "restored as " + restore_id, true);
}

}  // namespace uccp::backup
