// Outcomes that the cluster has not acknowledged, kept over a restart of the agent.
//
// One file an attempt, <directory>/<key>.outcome: "UCCPOUT" and the version 1, crc32c of the rest, then the outcome and
// the content that is not uploaded yet. Invariants: the file appears only when all that it refers to is on stable
// storage and under <directory>; a damaged file is reported and set aside, never half believed.
// Thread: one; all calls block on disk.
#pragma once

#include <string>
#include <vector>

#include "agent/link.h"
#include "base/file_system.h"

namespace uccp::agent {

struct StoredOutcome {
  wire::AttemptOutcome outcome;
  std::vector<BlobSource> uploads;  // all with a path
};

class OutcomeStore {
 public:
  // Makes the directory. `files` must outlive the store.
  static Result<OutcomeStore> open(FileSystem& files, std::string directory);

  // Stores durably. Moves files of `uploads` that are elsewhere here and changes their paths.
  Status put(const std::string& key, StoredOutcome& stored);
  // Removes the outcome and its content.
  Status remove(const std::string& key, const std::vector<BlobSource>& uploads);
  std::vector<StoredOutcome> load();

 private:
  OutcomeStore(FileSystem& files, std::string directory) : files_(&files), directory_(std::move(directory)) {}

  FileSystem* files_;
  std::string directory_;
};

}  // namespace uccp::agent
