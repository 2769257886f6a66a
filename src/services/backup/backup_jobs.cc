#include "services/backup/backup_jobs.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <optional>

#include "base/log.h"
#include "machine/restore.h"

namespace uccp::backup {
namespace {

// Pieces that are proposed before the first of them has to be applied.
constexpr size_t kPiecesInFlight = 8;
// A change of the leadership takes an election; the group is asked so often, and each time waits for its result.
constexpr int kCommitTries = 10;
constexpr std::string_view kSystemPrincipal = "system";

// A result that comes on another thread.
template <typename Value>
class Awaited {
 public:
  void set(Value value) {
    // Notified under the lock: whoever waits may destroy this at once.
    std::lock_guard lock(mutex_);
    value_.emplace(std::move(value));
    changed_.notify_all();
  }
  Value wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return value_.has_value(); });
    return std::move(*value_);
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Value> value_;
};

machine::Envelope system_command(std::string_view command, std::string payload) {
  machine::Envelope envelope;
  envelope.principal = kSystemPrincipal;
  envelope.command = command;
  envelope.payload = std::move(payload);
  return envelope;
}

// Errors after which the command may be tried again, since doing it twice changes nothing.
bool passes(const Status& status) {
  return status.code() == Code::kNotLeader || status.code() == Code::kUnavailable ||
         status.code() == Code::kOutcomeUnknown || status.code() == Code::kExhausted;
}

}  // namespace

Result<machine::GroupView> BackupJobs::view_of(GroupId group) {
  Awaited<Result<machine::GroupView>> view;
  env_.reader.read(group, {.kind = machine::ReadLevel::Kind::kLinearizable},
                   [&](Result<machine::GroupView> read) { view.set(std::move(read)); });
  return view.wait();
}

Result<machine::GroupView> BackupJobs::whole_view_of(const BackedGroup& group) {
  if (!group.log_is_data) return view_of(group.id);
  Awaited<Result<machine::GroupView>> view;
  env_.read_whole(group.id, [&](Result<machine::GroupView> read) { view.set(std::move(read)); });
  return view.wait();
}

Status BackupJobs::lead(GroupId group) {
  Awaited<Status> led;
  env_.lead(group, [&](Status status) { led.set(std::move(status)); });
  return led.wait();
}

Result<machine::Applied> BackupJobs::propose(GroupId group, std::string_view command, std::string payload) {
  Awaited<Result<machine::Applied>> applied;
  env_.proposer.propose(group, system_command(command, std::move(payload)),
                        [&](Result<machine::Applied> result) { applied.set(std::move(result)); });
  return applied.wait();
}

Result<Manifest> BackupJobs::create(Manifest about, const Tell& tell, const std::function<bool()>& go_on) {
  UCCP_TRY(auto writer, ArchiveWriter::begin(env_.archive, about.id));
  tell("reading the state", 0, 0);
  std::vector<machine::GroupView> views(env_.groups.size());
  for (size_t i = env_.groups.size(); i-- > 0;) {
    UCCP_TRY(views[i], whole_view_of(env_.groups[i]));
    if (env_.groups[i].log_is_data) env_.drop_copies(env_.groups[i].id);
  }
  const auto progress_of = [&](const std::string& what) {
    return [&tell, &go_on, what](uint64_t bytes) {
      tell(what, bytes, 0);
      return go_on();
    };
  };
  for (size_t i = 0; i < env_.groups.size(); ++i) {
    const BackedGroup& group = env_.groups[i];
    UCCP_TRY(auto header, machine::read_snapshot_header(group.id, views[i]));
    about.feature_level = std::max(about.feature_level, header.feature_level);
    UCCP_RETURN_IF_ERROR(writer->add_group(group.name,
                                           machine::SnapshotReader(std::move(header), views[i], env_.snapshot),
                                           progress_of("writing group " + group.name)));
  }
  views.clear();
  // After the states: what they refer to was stored before.
  UCCP_RETURN_IF_ERROR(writer->add_blobs(env_.blobs, progress_of("writing blobs")));
  about.finished_us = env_.clock.wall().us;
  UCCP_TRY(Manifest manifest, writer->finish(std::move(about)));
  // What is on the disk now is what will be read one day.
  UCCP_RETURN_IF_ERROR(env_.archive.verify(manifest, progress_of("verifying")));
  return manifest;
}

Status BackupJobs::check(const Manifest& manifest, const Tell& tell, const std::function<bool()>& go_on) {
  if (manifest.feature_level > machine::kFeatureLevelMax) {
    return Status(Code::kFailedPrecondition, "FEATURE_LEVEL",
                  "the backup is at feature level " + std::to_string(manifest.feature_level) +
                      " and this program knows " + std::to_string(machine::kFeatureLevelMax) +
                      "; start a newer version");
  }
  UCCP_RETURN_IF_ERROR(check_groups(manifest));
  return env_.archive.verify(manifest, [&](uint64_t bytes) {
    tell("verifying", bytes, manifest.bytes());
    return go_on();
  });
}

// All groups, but those that backups of before have nothing of and those that are newer than the backup.
Status BackupJobs::check_groups(const Manifest& manifest) {
  size_t known = 0;
  for (const BackedGroup& group : env_.groups) {
    const auto part = std::ranges::find(manifest.groups, group.id, &GroupPart::group);
    if (part == manifest.groups.end() && group.log_is_data) continue;
    known += part != manifest.groups.end() ? 1 : manifest.groups.size() + 1;
    if (part == manifest.groups.end() || !group.log_is_data) continue;
    // Entries of the log are named by their indexes, and the log here gives out its own.
    UCCP_TRY(const machine::GroupView here, view_of(group.id));
    if (part->position.index <= here.applied()) continue;
    return Status(Code::kFailedPrecondition, "BACKUP_AHEAD",
                  "the backup's log of group " + group.name +
                      " is longer than the one here, so it is of another cluster; "
                      "restore it into an empty data directory with: uccp restore");
  }
  if (known == manifest.groups.size()) return {};
  return Status(
      Code::kFailedPrecondition, "BACKUP_GROUPS",
      "the backup has other groups than this cluster; it was made by another version, or with more bus_groups: "
      "start that one");
}

// Answers how many pieces there are.
Result<uint64_t> BackupJobs::stage(const Manifest& manifest, const GroupPart& part, const std::string& restore_id,
                                   const Progress& progress) {
  UCCP_TRY(auto file, env_.archive.open_group(manifest, part));
  std::string stream;
  uint64_t number = 0;
  std::vector<std::unique_ptr<Awaited<Result<machine::Applied>>>> in_flight;
  const auto settle = [&]() -> Status {
    Status first;
    // All of them are waited for, whatever becomes of the first.
    for (auto& piece : in_flight) {
      const auto applied = piece->wait();
      if (!applied && first.is_ok()) first = applied.error();
    }
    in_flight.clear();
    return first;
  };
  for (bool more = true; more || !stream.empty();) {
    while (more && stream.size() < machine::kRestorePieceBytes) {
      UCCP_TRY(const auto chunk, file->next());
      more = chunk.has_value();
      if (chunk) stream += machine::frame_chunk(*chunk);
    }
    if (stream.empty()) break;
    const std::string piece = stream.substr(0, machine::kRestorePieceBytes);
    stream.erase(0, piece.size());
    auto& awaited = *in_flight.emplace_back(std::make_unique<Awaited<Result<machine::Applied>>>());
    env_.proposer.propose(
        part.group,
        system_command(machine::kRestorePieceCommand, machine::encode_restore_piece(restore_id, number++, piece)),
        [&awaited](Result<machine::Applied> result) { awaited.set(std::move(result)); });
    if (in_flight.size() < kPiecesInFlight) continue;
    UCCP_RETURN_IF_ERROR(settle());
    if (!progress(number * machine::kRestorePieceBytes)) {
      return fail(Code::kCancelled, "BACKUP_STOPPED", "the node stops");
    }
  }
  UCCP_RETURN_IF_ERROR(settle());
  return number;
}

Status BackupJobs::commit(const GroupPart& part, const std::string& restore_id, uint64_t pieces) {
  Status last;
  for (int attempt = 0; attempt < kCommitTries; ++attempt) {
    const auto applied =
        propose(part.group, machine::kRestoreCommitCommand, machine::encode_restore_commit(restore_id, pieces));
    if (applied) return {};
    last = applied.error();
    // Its outcome was lost, and it was done: the pieces are gone.
    if (const auto view = view_of(part.group); view && machine::restored_mark(*view).id == restore_id) return {};
    if (!passes(last)) return last;
    (void)lead(part.group);
  }
  return last;
}

Status BackupJobs::restore(const Manifest& manifest, const std::string& restore_id, const Tell& tell,
                           const std::function<bool()>& go_on) {
  UCCP_RETURN_IF_ERROR(env_.archive.restore_blobs(manifest, env_.blobs, [&](uint64_t bytes) {
    tell("restoring blobs", bytes, manifest.bytes());
    return go_on();
  }));
  std::vector<const GroupPart*> parts;
  for (const GroupPart& part : manifest.groups) parts.push_back(&part);
  std::map<GroupId, uint64_t> pieces;
  Status staged;
  for (const GroupPart* part : parts) {
    if (staged = lead(part->group); !staged.is_ok()) break;
    auto count = stage(manifest, *part, restore_id, [&](uint64_t bytes) {
      tell("sending group " + part->name, bytes, part->sum.size);
      return go_on();
    });
    if (!count) staged = count.error();
    if (!staged.is_ok()) break;
    pieces[part->group] = *count;
  }
  if (!staged.is_ok()) {
    // Best effort: what stays behind is dropped by the next restore.
    for (const GroupPart* part : parts) (void)propose(part->group, machine::kRestoreDropCommand, "");
    return Status(staged.code(), staged.reason(), "nothing was changed: " + staged.message());
  }
  std::string replaced;
  for (const GroupPart* part : parts) {
    tell("replacing the state of group " + part->name, manifest.bytes(), manifest.bytes());
    if (const Status done = commit(*part, restore_id, pieces[part->group]); !done.is_ok()) {
      const std::string before =
          replaced.empty() ? "nothing was changed" : "replaced are " + replaced + ": restore again";
      return Status(done.code(), done.reason(),
                    "group " + part->name + " was not replaced: " + done.message() + "; " + before);
    }
    replaced += (replaced.empty() ? "" : ", ") + part->name;
  }
  return {};
}

}  // namespace uccp::backup
