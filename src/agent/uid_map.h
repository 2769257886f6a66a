// Unprivileged users for tasks: one uid (and gid of the same number) for each namespace on this worker.
//
// Invariants: two namespaces never share a uid; a namespace keeps its uid across restarts, since files of its tasks may
// lie around; the numbers are kUidFirst and up, where distributions put no accounts.
// Thread: one.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "base/file_system.h"
#include "base/status.h"

namespace uccp::agent {

inline constexpr uint32_t kUidFirst = 200'000;
inline constexpr uint32_t kUidCount = 60'000;

class UidMap {
 public:
  // Reads `path` if it exists. Errors: corruption UID_MAP_INVALID. `files` must outlive the map.
  static Result<UidMap> open(FileSystem& files, std::string path);

  // The uid of the namespace; made and stored durably when it is new. Errors: exhausted UIDS_EXHAUSTED, and those of
  // the file system.
  Result<uint32_t> uid_of(const std::string& tenant, const std::string& namespace_name);

 private:
  UidMap(FileSystem& files, std::string path) : files_(&files), path_(std::move(path)) {}

  FileSystem* files_;
  std::string path_;
  std::map<std::string, uint32_t> uids_;
};

}  // namespace uccp::agent
