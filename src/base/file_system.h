// The only door to files for everything below `runtime`. All calls block; they belong on a disk executor.
//
// A failed sync leaves the file in an unknown state: the caller must stop using it, and must not retry the sync.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace uccp {

enum class OpenMode : uint8_t {
  kRead,          // must exist
  kReadWrite,     // must exist
  kCreate,        // created; an existing one is an error
  kCreateOrOpen,  // created if missing, opened for reading and writing
};

class File {
 public:
  virtual ~File() = default;
  // Reads up to `size` bytes at `offset` into `out` (replaced). Fewer bytes only at the end of the file.
  virtual Status read_at(uint64_t offset, size_t size, std::string& out) = 0;
  // Writes all of `data` at `offset`, extending the file if needed. Errors: exhausted NO_SPACE, unavailable IO_ERROR.
  virtual Status write_at(uint64_t offset, std::string_view data) = 0;
  // Data and the size needed to read it are on stable storage after return (fdatasync).
  virtual Status sync() = 0;
  // Asks the system to begin writing these bytes to the disk, so that a later sync() waits less. Promises nothing.
  virtual void start_writing(uint64_t offset, uint64_t size) {}
  // Writes zeros to a part that is allocated and was never written. File systems that allocate lazily (ext4, XFS) note
  // the first write of each block, and a sync waits for that too; so it waits once for many blocks. Promises nothing.
  virtual void prepare(uint64_t offset, uint64_t size) {}
  virtual Result<uint64_t> size() = 0;
  virtual Status truncate(uint64_t size) = 0;
  // Reserves space up to `size` bytes, so that later writes inside it find room. The file reads as zeros there.
  virtual Status allocate(uint64_t size) = 0;
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;
  virtual Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) = 0;
  // Names in the directory, sorted, without "." and "..".
  virtual Result<std::vector<std::string>> list(const std::string& directory) = 0;
  virtual Result<bool> exists(const std::string& path) = 0;
  // Creates the directory and its missing parents (mode 0700). Existing is fine.
  virtual Status make_directories(const std::string& path) = 0;
  // Removing what does not exist is fine.
  virtual Status remove(const std::string& path) = 0;
  // Atomically replaces `to`. Durable only after sync_directory of the parent.
  virtual Status rename(const std::string& from, const std::string& to) = 0;
  // Makes `to` another name of the file `from`. Errors: already_exists; unimplemented where files have one name.
  virtual Status hard_link(const std::string& from, const std::string& to) {
    return Status(Code::kUnimplemented, "LINKS_UNSUPPORTED", "files have one name here: " + from + ", " + to);
  }
  virtual Status sync_directory(const std::string& path) = 0;
  virtual Result<uint64_t> free_bytes(const std::string& path) = 0;
};

// Reads a whole file of at most `size_max` bytes.
Result<std::string> read_file(FileSystem& files, const std::string& path, uint64_t size_max);
// Replaces `path` so that after a crash either the old or the new content is there: temporary file, sync, rename, sync.
Status write_file_atomically(FileSystem& files, const std::string& path, std::string_view data);

}  // namespace uccp
