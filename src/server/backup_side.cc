#include "server/backup_side.h"

#include <algorithm>

#include "base/log.h"
#include "services/admin/build_info.h"

namespace uccp::server {
namespace {

constexpr uint64_t kKeyFileBytesMax = 4096;
constexpr uint64_t kPackedChunkBytesMin = 1024;
// A leadership that was asked for is looked for so often.
constexpr int kLeadTries = 100;
constexpr int64_t kLeadPauseMs = 50;

}  // namespace

BackupPlace backup_place(const Config& config, const std::string& data_dir) {
  return {config.is_set("backup_dir") ? config.text("backup_dir") : data_dir + "/backups",
          config.is_set("backup_key_file") ? config.text("backup_key_file") : data_dir + "/keys/backup.key"};
}

Result<SecretKey> load_backup_key(FileSystem& files, const BackupPlace& place, bool make, Random& random) {
  UCCP_TRY(const bool exists, files.exists(place.key_file));
  if (!exists && !make) {
    return fail(Code::kNotFound, "KEY_MISSING",
                "there is no key of backups in " + place.key_file + "; write one with: openssl rand -hex 32 > " +
                    place.key_file);
  }
  if (!exists) {
    const size_t slash = place.key_file.rfind('/');
    UCCP_RETURN_IF_ERROR(files.make_directories(place.key_file.substr(0, slash)));
    const SecretKey made = SecretKey::make(random);
    UCCP_RETURN_IF_ERROR(write_file_atomically(files, place.key_file, made.text()));
    return made;
  }
  UCCP_TRY(const std::string text, read_file(files, place.key_file, kKeyFileBytesMax));
  auto key = SecretKey::parse(text);
  if (!key) return fail(Code::kInvalid, "KEY_INVALID", place.key_file + ": " + key.error().message());
  return key;
}

Result<std::unique_ptr<BackupSide>> BackupSide::open(const Config& config, const std::string& data_dir,
                                                     BackupSideEnvironment environment) {
  const BackupPlace place = backup_place(config, data_dir);
  UCCP_TRY(const SecretKey key,
           load_backup_key(environment.files, place, !config.is_set("backup_key_file"), environment.random));
  UCCP_RETURN_IF_ERROR(environment.files.make_directories(place.directory));
  backup::Archive archive(environment.files, place.directory, key, environment.random);
  UCCP_RETURN_IF_ERROR(archive.remove_unfinished());
  return std::unique_ptr<BackupSide>(new BackupSide(std::move(environment), archive));
}

BackupSide::BackupSide(BackupSideEnvironment environment, backup::Archive archive)
    : env_(std::move(environment)), archive_(archive) {
  // A job blocks its thread for as long as it takes.
  worker_ = std::make_unique<runtime::Loop>(env_.clock, runtime::LoopOptions{.stall_ms = INT64_MAX / 1000});
  jobs_ = std::make_unique<backup::BackupJobs>(backup::JobEnvironment{
      .proposer = env_.node,
      .reader = env_.node,
      .blobs = env_.blobs,
      .archive = archive_,
      .clock = env_.clock,
      .groups = env_.groups,
      .snapshot = {.compression = {env_.compression.encoding, kPackedChunkBytesMin}},
      .lead = [this](GroupId group,
                     std::move_only_function<void(Status)> done) { lead(group, kLeadTries, std::move(done)); },
      .read_whole = [this](GroupId group, machine::Reader::Done done) { env_.node.read_whole(group, std::move(done)); },
      .drop_copies = [this](GroupId group) { env_.node.drop_copies(group); }});
  service_ = std::make_unique<backup::BackupService>(
      backup::BackupEnvironment{.proposer = env_.node,
                                .jobs = *jobs_,
                                .archive = archive_,
                                .worker = *worker_,
                                .reads = env_.reads,
                                .clock = env_.clock,
                                .random = env_.random,
                                .page_tokens = env_.page_tokens,
                                .node = env_.identity.node,
                                .cluster_id = env_.identity.cluster_id,
                                .program_version = std::string(admin::program_version()),
                                .metrics = env_.metrics});
  worker_->start("uccp-backup");
  if (env_.every_ms > 0) tick();
}

// The node that leads the core group looks now and then whether it is time.
void BackupSide::tick() {
  const auto status = env_.node.status();
  const auto core = status.find(kCoreGroup);
  if (core != status.end() && core->second.leads) service_->begin_if_due(env_.every_ms, env_.retention_ms);
  const int64_t pause_ms = std::clamp<int64_t>(env_.every_ms / 10, 100, 60'000);
  env_.timers.post_after(pause_ms, [this, ticking = ticking_] {
    if (ticking->load()) tick();
  });
}

BackupSide::~BackupSide() { stop(); }

void BackupSide::stop() {
  ticking_->store(false);
  service_->stop();
  worker_->stop();
}

// Asks for the leadership once, then looks until it is here.
void BackupSide::lead(GroupId group, int tries, std::move_only_function<void(Status)> done) {
  const auto status = env_.node.status();
  const auto found = status.find(group);
  if (found != status.end() && found->second.leads) return done(Status::ok());
  if (tries == 0 || found == status.end()) {
    return done(Status(Code::kUnavailable, "LEADERSHIP_NOT_MOVED",
                       "this node did not become the leader of group " + std::to_string(group.value) +
                           "; it has to be a voter that is not behind, retry"));
  }
  auto look_again = [this, group, tries, done = std::move(done)](Status) mutable {
    env_.timers.post_after(kLeadPauseMs, [this, group, tries, done = std::move(done)]() mutable {
      lead(group, tries - 1, std::move(done));
    });
  };
  if (tries % 20 == 0) return env_.node.transfer(group, env_.identity.node, std::move(look_again));
  look_again(Status::ok());
}

}  // namespace uccp::server
