#include "runtime/posix_file_system.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <system_error>
#include <utility>

namespace uccp::runtime {
namespace {

constexpr mode_t kFileMode = 0600;
constexpr mode_t kDirectoryMode = 0700;

template <typename F>
auto retry_interrupted(F call) {
  while (true) {
    const auto result = call();
    if (result >= 0 || errno != EINTR) return result;
  }
}

std::string bytes_at(std::string_view verb, size_t size, uint64_t offset) {
  return std::string(verb) + " " + std::to_string(size) + " bytes at " + std::to_string(offset) + " of";
}

class PosixFile final : public File {
 public:
  PosixFile(int descriptor, std::string path) : descriptor_(descriptor), path_(std::move(path)) {}
  ~PosixFile() override { ::close(descriptor_); }
  PosixFile(const PosixFile&) = delete;
  PosixFile& operator=(const PosixFile&) = delete;

  Status read_at(uint64_t offset, size_t size, std::string& out) override {
    size_t done = 0;
    int error_number = 0;
    // Without zeros in between, which would cost as much as the bytes.
    out.resize_and_overwrite(size, [&](char* to, size_t) {
      while (done < size) {
        const ssize_t got = retry_interrupted(
            [&] { return ::pread(descriptor_, to + done, size - done, static_cast<off_t>(offset + done)); });
        if (got < 0) error_number = errno;
        if (got <= 0) break;
        done += static_cast<size_t>(got);
      }
      return done;
    });
    if (error_number == 0) return Status::ok();
    out.clear();
    return file_error(error_number, bytes_at("read", size - done, offset + done), path_);
  }

  Status write_at(uint64_t offset, std::string_view data) override {
    size_t done = 0;
    while (done < data.size()) {
      const ssize_t put = retry_interrupted([&] {
        return ::pwrite(descriptor_, data.data() + done, data.size() - done, static_cast<off_t>(offset + done));
      });
      if (put < 0) return file_error(errno, bytes_at("write", data.size() - done, offset + done), path_);
      // A regular file takes nothing only when there is no room left for it.
      if (put == 0) return file_error(ENOSPC, bytes_at("write", data.size() - done, offset + done), path_);
      done += static_cast<size_t>(put);
    }
    return Status::ok();
  }

  Status sync() override {
    // Not retried, not even after EINTR: what a failed sync leaves behind is unknown.
    if (::fdatasync(descriptor_) != 0) return file_error(errno, "sync", path_);
    return Status::ok();
  }

  void start_writing(uint64_t offset, uint64_t size) override {
    // Only a hint: an error shows in the sync that follows.
    (void)::sync_file_range(descriptor_, static_cast<off_t>(offset), static_cast<off_t>(size), SYNC_FILE_RANGE_WRITE);
  }

  void prepare(uint64_t offset, uint64_t size) override {
    // Only a hint, too.
    (void)write_at(offset, std::string(size, '\0'));
  }

  Result<uint64_t> size() override {
    struct stat info{};
    if (::fstat(descriptor_, &info) != 0) return fail(file_error(errno, "stat", path_));
    return static_cast<uint64_t>(info.st_size);
  }

  Status truncate(uint64_t size) override {
    if (retry_interrupted([&] { return ::ftruncate(descriptor_, static_cast<off_t>(size)); }) != 0) {
      return file_error(errno, "truncate to " + std::to_string(size) + " bytes", path_);
    }
    return Status::ok();
  }

  Status allocate(uint64_t size) override {
    if (size == 0) return Status::ok();
    if (retry_interrupted([&] { return ::fallocate(descriptor_, 0, 0, static_cast<off_t>(size)); }) == 0) {
      return Status::ok();
    }
    if (errno != EOPNOTSUPP && errno != ENOSYS) {
      return file_error(errno, "allocate " + std::to_string(size) + " bytes for", path_);
    }
    return write_zeros(size);
  }

 private:
  // For file systems without fallocate. What the file has already is left as it is, holes included.
  Status write_zeros(uint64_t until) {
    UCCP_TRY(uint64_t offset, size());
    const std::string zeros(1 << 20, '\0');
    while (offset < until) {
      const size_t piece = static_cast<size_t>(std::min<uint64_t>(zeros.size(), until - offset));
      UCCP_RETURN_IF_ERROR(write_at(offset, std::string_view(zeros).substr(0, piece)));
      offset += piece;
    }
    return Status::ok();
  }

  const int descriptor_;
  const std::string path_;
};

int open_flags(OpenMode mode) {
  switch (mode) {
    case OpenMode::kRead: return O_RDONLY;
    case OpenMode::kReadWrite: return O_RDWR;
    case OpenMode::kCreate: return O_RDWR | O_CREAT | O_EXCL;
    case OpenMode::kCreateOrOpen: return O_RDWR | O_CREAT;
  }
  std::unreachable();
}

}  // namespace

Status file_error(int error_number, std::string_view what, const std::string& path) {
  const std::string message =
      "cannot " + std::string(what) + " " + path + ": " + std::system_category().message(error_number);
  switch (error_number) {
    case ENOENT: return Status(Code::kNotFound, "FILE_NOT_FOUND", message);
    case EEXIST: return Status(Code::kAlreadyExists, "FILE_EXISTS", message);
    case EACCES:
    case EPERM:
    case EROFS: return Status(Code::kPermission, "FILE_PERMISSION", message);
    case ENOSPC:
    case EDQUOT: return Status(Code::kExhausted, "NO_SPACE", message + "; free space on this file system");
    case EMFILE:
    case ENFILE: return Status(Code::kExhausted, "TOO_MANY_FILES", message + "; raise the limit of open files");
    default: return Status(Code::kUnavailable, "IO_ERROR", message);
  }
}

Result<std::unique_ptr<File>> PosixFileSystem::open(const std::string& path, OpenMode mode) {
  const int descriptor =
      retry_interrupted([&] { return ::open(path.c_str(), open_flags(mode) | O_CLOEXEC, kFileMode); });
  if (descriptor < 0) return fail(file_error(errno, "open", path));
  return std::make_unique<PosixFile>(descriptor, path);
}

Result<std::vector<std::string>> PosixFileSystem::list(const std::string& directory) {
  DIR* stream = ::opendir(directory.c_str());
  if (stream == nullptr) return fail(file_error(errno, "list", directory));
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(stream)) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
    errno = 0;
  }
  const int error_number = errno;
  ::closedir(stream);
  if (error_number != 0) return fail(file_error(error_number, "list", directory));
  std::ranges::sort(names);
  return names;
}

Result<bool> PosixFileSystem::exists(const std::string& path) {
  struct stat info{};
  if (::lstat(path.c_str(), &info) == 0) return true;
  if (errno == ENOENT || errno == ENOTDIR) return false;
  return fail(file_error(errno, "stat", path));
}

Status PosixFileSystem::make_directories(const std::string& path) {
  for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string prefix = path.substr(0, end);
    if (::mkdir(prefix.c_str(), kDirectoryMode) != 0 && errno != EEXIST) {
      // A parent that exists may be on a read-only file system or not be ours: only the last one has to be made.
      const int error_number = errno;
      struct stat info{};
      if (::stat(prefix.c_str(), &info) != 0) return file_error(error_number, "create directory", prefix);
    }
    if (end == std::string::npos) break;
  }
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0) return file_error(errno, "stat", path);
  if (!S_ISDIR(info.st_mode)) return file_error(EEXIST, "create directory", path);
  return Status::ok();
}

Status PosixFileSystem::remove(const std::string& path) {
  if (::remove(path.c_str()) == 0 || errno == ENOENT) return Status::ok();
  return file_error(errno, "remove", path);
}

Status PosixFileSystem::rename(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) return file_error(errno, "rename " + from + " to", to);
  return Status::ok();
}

Status PosixFileSystem::hard_link(const std::string& from, const std::string& to) {
  if (::link(from.c_str(), to.c_str()) == 0) return Status::ok();
  // Another file system, or one without links.
  if (errno == EXDEV || errno == EPERM || errno == EMLINK || errno == EOPNOTSUPP)
    return FileSystem::hard_link(from, to);
  return file_error(errno, "link " + from + " to", to);
}

Status PosixFileSystem::sync_directory(const std::string& path) {
  const int descriptor = retry_interrupted([&] { return ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
  if (descriptor < 0) return file_error(errno, "open directory", path);
  const int result = ::fsync(descriptor);
  const int error_number = errno;
  ::close(descriptor);
  if (result != 0) return file_error(error_number, "sync directory", path);
  return Status::ok();
}

Result<uint64_t> PosixFileSystem::free_bytes(const std::string& path) {
  struct statvfs info{};
  if (retry_interrupted([&] { return ::statvfs(path.c_str(), &info); }) != 0) {
    return fail(file_error(errno, "ask for the free space of", path));
  }
  return static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
}

Result<DirectoryLock> DirectoryLock::acquire(const std::string& directory) {
  const std::string path = directory + "/LOCK";
  const int descriptor =
      retry_interrupted([&] { return ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, kFileMode); });
  if (descriptor < 0) return fail(file_error(errno, "open", path));
  DirectoryLock lock(descriptor);
  if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return fail(file_error(errno, "lock", path));
    return fail(Code::kFailedPrecondition, "DIRECTORY_IN_USE",
                directory + " is in use by another process; stop it or choose another directory");
  }
  return lock;
}

DirectoryLock::~DirectoryLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

DirectoryLock::DirectoryLock(DirectoryLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

DirectoryLock& DirectoryLock::operator=(DirectoryLock&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

}  // namespace uccp::runtime
