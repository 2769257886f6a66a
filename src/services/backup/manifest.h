// What a backup holds, and of what. Written last: a folder without one is no backup.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/hash.h"
#include "base/ids.h"
#include "base/log_types.h"
#include "services/backup/sealed_file.h"

namespace uccp::backup {

struct GroupPart {
  GroupId group;
  std::string name;
  LogPosition position;  // the state is as of this entry
  Digest digest;
  std::string file;  // in the folder of the backup
  FileSum sum;

  bool operator==(const GroupPart&) const = default;
};

struct BlobPart {
  std::string sha256;  // of the content: its name
  uint64_t size = 0;   // of the content
  uint64_t file_size = 0;

  bool operator==(const BlobPart&) const = default;
};

struct Manifest {
  std::string id;
  std::string cluster_id;
  NodeId node;  // that made it
  std::string program_version;
  uint32_t feature_level = 1;
  int64_t created_us = 0;
  int64_t finished_us = 0;
  int64_t expires_us = 0;  // 0: never
  std::map<std::string, std::string> labels;
  std::vector<GroupPart> groups;  // by id
  std::vector<BlobPart> blobs;    // by name

  uint64_t bytes() const;  // of all files but the manifest
  // SHA-256 over the sums of all files, as 64 hexadecimal digits.
  std::string sha256() const;
  bool operator==(const Manifest&) const = default;
};

std::string encode(const Manifest& manifest);
// Errors: corruption BACKUP_DAMAGED; failed_precondition BACKUP_VERSION_UNSUPPORTED.
Result<Manifest> decode_manifest(std::string_view bytes);

// Names that may stand in paths: `backup_` and so on, "." and "/" only inside.
bool is_backup_id(std::string_view text);

}  // namespace uccp::backup
