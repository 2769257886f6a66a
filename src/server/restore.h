// Into an empty data directory: the state of a backup, as a cluster that begins from it.
#pragma once

#include <string>

#include "base/clock.h"
#include "base/file_system.h"
#include "base/ids.h"
#include "base/random.h"
#include "server/config.h"

namespace uccp::server {

struct RestoreOptions {
  std::string from;      // folder of one backup
  std::string data_dir;  // empty but for pki/ and a configuration
  NodeId node{1};
  std::string cluster_id;  // empty: that of the backup
};

// Reads every file of the backup and answers what it holds, as text. `config` names the key. Errors: those of
// backup::Archive.
Result<std::string> verify_backup(FileSystem& files, const Config& config, const std::string& from, Random& random);

// Verifies the backup, then fills the directory: identity, state, log, blobs. Indexes of the log go on far behind those
// of the backup, so that none that the lost cluster gave out comes again. Answers what it did, as text. Errors: those
// of backup::Archive; failed_precondition DATA_DIR_NOT_EMPTY.
Result<std::string> restore_directory(FileSystem& files, const Config& config, const RestoreOptions& options,
                                      const Clock& clock, Random& random);

// For a start: failed_precondition RESTORE_UNFINISHED if a restore into the directory did not come to its end.
Status check_restored(FileSystem& files, const std::string& data_dir);

}  // namespace uccp::server
