// Making backups and putting them back. Both block for as long as they take, on a thread of their own.
//
// A backup holds the state of each group as a linearizable read saw it after the backup began, so everything that was
// acknowledged before is in it. The groups are read from the last to the first: what a group refers to in one before it
// is there. A restore goes through the logs of the groups (machine/restore.h), so all replicas end with the same.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "machine/ports.h"
#include "services/backup/archive.h"

namespace uccp::backup {

struct BackedGroup {
  std::string name;
  GroupId id;
  // Its data is in its log; backups of before have nothing of it.
  bool log_is_data = false;
};

// Everything must outlive the jobs.
struct JobEnvironment {
  machine::Proposer& proposer;
  machine::Reader& reader;
  objects::BlobStore& blobs;
  Archive& archive;
  const Clock& clock;
  std::vector<BackedGroup> groups;  // those that others refer to come first
  machine::SnapshotOptions snapshot;
  // Makes this node the leader of the group; the callback comes once, on any thread.
  std::function<void(GroupId, std::move_only_function<void(Status)>)> lead;
  // A view that has beside it what the state needs of the log, and the end of that. For groups whose data is there.
  std::function<void(GroupId, machine::Reader::Done)> read_whole;
  std::function<void(GroupId)> drop_copies;
};

// Tells how far it is: a sentence, bytes done and all of them, 0 if that is not known.
using Tell = std::function<void(const std::string& what, uint64_t bytes, uint64_t all)>;

class BackupJobs {
 public:
  explicit BackupJobs(JobEnvironment environment) : env_(std::move(environment)) {}

  // `about`: id, cluster, node, labels and times of the manifest. `go_on` answers false when the node stops.
  Result<Manifest> create(Manifest about, const Tell& tell, const std::function<bool()>& go_on);

  // Checks that the backup can replace the state here, down to every byte of it. Errors: corruption BACKUP_DAMAGED;
  // failed_precondition BACKUP_KEY_WRONG, BACKUP_GROUPS, FEATURE_LEVEL.
  Status check(const Manifest& manifest, const Tell& tell, const std::function<bool()>& go_on);
  // Replaces the state of all groups. Requires check(). Until the last step nothing changes; an error names what did.
  Status restore(const Manifest& manifest, const std::string& restore_id, const Tell& tell,
                 const std::function<bool()>& go_on);

 private:
  Result<machine::GroupView> view_of(GroupId group);
  Result<machine::GroupView> whole_view_of(const BackedGroup& group);
  Status check_groups(const Manifest& manifest);
  Status lead(GroupId group);
  Result<machine::Applied> propose(GroupId group, std::string_view command, std::string payload);
  Result<uint64_t> stage(const Manifest& manifest, const GroupPart& part, const std::string& restore_id,
                         const Progress& progress);
  Status commit(const GroupPart& part, const std::string& restore_id, uint64_t pieces);

  const JobEnvironment env_;
};

}  // namespace uccp::backup
