// The real file system behind base/file_system.h.
//
// Files are made with mode 0600 and directories with 0700, whatever the umask adds to that. Errors name the path and
// the system's own words: not_found FILE_NOT_FOUND, already_exists FILE_EXISTS, permission FILE_PERMISSION, exhausted
// NO_SPACE (also quotas) and TOO_MANY_FILES, unavailable IO_ERROR for everything else.
// Thread: the file system is callable from any thread, a File from one at a time; all calls block.
#pragma once

#include "base/file_system.h"

namespace uccp::runtime {

class PosixFileSystem final : public FileSystem {
 public:
  Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override;
  Result<std::vector<std::string>> list(const std::string& directory) override;
  Result<bool> exists(const std::string& path) override;
  Status make_directories(const std::string& path) override;
  Status remove(const std::string& path) override;
  Status rename(const std::string& from, const std::string& to) override;
  Status hard_link(const std::string& from, const std::string& to) override;
  Status sync_directory(const std::string& path) override;
  Result<uint64_t> free_bytes(const std::string& path) override;
};

// The status of a failed system call: `what` was tried ("write 10 bytes to"), on `path`, with `error_number`.
Status file_error(int error_number, std::string_view what, const std::string& path);

// Holds a directory for this process, so that no second server opens the same data. Released by the destructor and by
// the end of the process.
class DirectoryLock {
 public:
  // Creates "<directory>/LOCK" if it is missing. Errors: failed_precondition DIRECTORY_IN_USE.
  static Result<DirectoryLock> acquire(const std::string& directory);
  ~DirectoryLock();
  DirectoryLock(DirectoryLock&& other) noexcept;
  DirectoryLock& operator=(DirectoryLock&& other) noexcept;

 private:
  explicit DirectoryLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_ = -1;
};

}  // namespace uccp::runtime
