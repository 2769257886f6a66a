// The backups in one directory: a folder each, made under another name and renamed when it is whole.
//
//   DIR/<id>/manifest, group-<name>, blobs/<sha256>        DIR/.unfinished-<id>/...
//
// A blob that an earlier backup has is linked from there, not copied. One thread at a time; calls block.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/aead.h"
#include "base/file_system.h"
#include "machine/snapshot.h"
#include "services/backup/manifest.h"
#include "services/objects/blob_store.h"

namespace uccp::backup {

// Called now and then with the bytes that are done; answers false to give up (cancelled BACKUP_STOPPED).
using Progress = std::function<bool(uint64_t bytes)>;

class Archive {
 public:
  // `files` must outlive it. `random` must be the system's.
  Archive(FileSystem& files, std::string directory, SecretKey key, Random& random)
      : files_(files), directory_(std::move(directory)), key_(key), random_(random) {}

  // Readable manifests, newest first. A folder that is none, or was sealed with another key, is left out.
  Result<std::vector<Manifest>> list();
  // Errors: not_found BACKUP_NOT_FOUND; those of SealedReader and decode_manifest.
  Result<Manifest> read(const std::string& id);
  // Reads every file of the backup and compares it with the manifest, the states of groups with their digests. Errors:
  // corruption BACKUP_DAMAGED naming the file.
  Status verify(const Manifest& manifest, const Progress& progress);
  Status remove(const std::string& id);
  // What a process that ended left behind.
  Status remove_unfinished();

  // The state of a group, chunk by chunk, as machine::SnapshotReader wrote it. Requires that the backup was verified:
  // damage is noticed, but only where it is.
  Result<std::unique_ptr<SealedReader>> open_group(const Manifest& manifest, const GroupPart& part);
  // Puts the blobs of the backup that are missing into the store.
  Status restore_blobs(const Manifest& manifest, objects::BlobStore& store, const Progress& progress);

  const std::string& directory() const { return directory_; }
  std::string path_of(const std::string& id) const { return directory_ + "/" + id; }

 private:
  friend class ArchiveWriter;
  Status verify_group(const Manifest& manifest, const GroupPart& part, const Progress& progress, uint64_t& done);
  Status read_blob(const Manifest& manifest, const BlobPart& part, const std::function<Status(std::string_view)>& take);
  Status remove_folder(const std::string& path);

  FileSystem& files_;
  const std::string directory_;
  const SecretKey key_;
  Random& random_;
};

// One backup on its way. Without finish() nothing of it counts.
class ArchiveWriter {
 public:
  static Result<std::unique_ptr<ArchiveWriter>> begin(Archive& archive, const std::string& id);

  Status add_group(const std::string& name, machine::SnapshotReader reader, const Progress& progress);
  // All blobs that the store has now.
  Status add_blobs(objects::BlobStore& store, const Progress& progress);
  // Makes it a backup. `about` tells what the writer cannot know; parts are filled in. Answers the manifest as written.
  Result<Manifest> finish(Manifest about);
  uint64_t bytes() const { return bytes_; }

 private:
  ArchiveWriter(Archive& archive, std::string id);
  Result<BlobPart> add_blob(objects::BlobStore& store, const std::string& sha256);
  Result<bool> link_blob(const BlobPart& part);

  Archive& archive_;
  const std::string id_;
  const std::string folder_;
  std::vector<GroupPart> groups_;
  std::vector<BlobPart> blobs_;
  std::map<std::string, std::pair<std::string, BlobPart>> earlier_;  // blobs of other backups: file, part
  uint64_t bytes_ = 0;
};

}  // namespace uccp::backup
