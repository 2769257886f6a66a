#include "agent/log_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace uccp::agent {
namespace {

Status log_error(const char* what, const std::string& path) {
  const int error = errno;
  return Status(Code::kUnavailable, "IO_ERROR",
                std::string("cannot ") + what + " " + path + ": " + std::strerror(error));
}

bool write_fully(int fd, std::string_view data) {
  while (!data.empty()) {
    const ssize_t put = ::write(fd, data.data(), data.size());
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return false;
    data.remove_prefix(static_cast<size_t>(put));
  }
  return true;
}

}  // namespace

AttemptLog::AttemptLog(std::string path, uint64_t bytes_max) : path_(std::move(path)), bytes_max_(bytes_max) {}

AttemptLog::~AttemptLog() {
  if (fd_ >= 0) close(fd_);
}

void AttemptLog::append(tasks::LogStreamKind stream, int64_t time_us, std::string_view bytes) {
  while (!bytes.empty() && !truncated_) {
    std::string_view piece = bytes.substr(0, tasks::kLogRecordBytesMax);
    const uint64_t used = std::max<uint64_t>(size_, tasks::kLogHeaderBytes) + tasks::kLogRecordHeaderBytes;
    const uint64_t room = bytes_max_ > used ? bytes_max_ - used : 0;
    if (room == 0) return cut(time_us, "the limit of " + std::to_string(bytes_max_) + " bytes was reached");
    piece = piece.substr(0, room);
    std::string record = size_ == 0 ? tasks::log_header() : std::string();
    tasks::append_log_record(record, {time_us, stream, piece});
    if (!write(record)) return;
    records_ += 1;
    (stream == tasks::LogStreamKind::kStdout ? stdout_bytes_ : stderr_bytes_) += piece.size();
    bytes.remove_prefix(piece.size());
  }
}

void AttemptLog::cut(int64_t time_us, std::string_view why) {
  truncated_ = true;
  std::string record = size_ == 0 ? tasks::log_header() : std::string();
  tasks::append_log_record(record,
                           {time_us, tasks::LogStreamKind::kNotice, "output was cut here: " + std::string(why)});
  if (write(record)) records_ += 1;
}

bool AttemptLog::write(std::string_view data) {
  if (fd_ < 0 && memory_.size() + data.size() > kMemoryBytesMax && !spill().is_ok()) {
    truncated_ = true;
    return false;
  }
  if (fd_ < 0) {
    memory_.append(data);
  } else if (!write_fully(fd_, data)) {
    // A full disk: whole records before it stay readable, the torn one is cut off.
    (void)!ftruncate(fd_, static_cast<off_t>(size_));
    truncated_ = true;
    return false;
  }
  size_ += data.size();
  return true;
}

Status AttemptLog::spill() {
  fd_ = open(path_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
  if (fd_ < 0) return log_error("make", path_);
  if (!write_fully(fd_, memory_)) {
    Status status = log_error("write", path_);
    close(fd_);
    fd_ = -1;
    unlink(path_.c_str());
    return status;
  }
  memory_.clear();
  memory_.shrink_to_fit();
  return {};
}

Result<std::string> AttemptLog::read(uint64_t position, size_t size_max) const {
  if (position >= size_) return std::string();
  if (fd_ < 0) return memory_.substr(position, size_max);
  std::string out(std::min<uint64_t>(size_max, size_ - position), '\0');
  const ssize_t got = pread(fd_, out.data(), out.size(), static_cast<off_t>(position));
  if (got < 0) return fail(log_error("read", path_));
  out.resize(static_cast<size_t>(got));
  return out;
}

Status AttemptLog::persist() {
  if (size_ == 0) return {};
  if (fd_ < 0) UCCP_RETURN_IF_ERROR(spill());
  if (fdatasync(fd_) != 0) return log_error("sync", path_);
  return {};
}

void AttemptLog::remove() {
  if (fd_ >= 0) {
    close(fd_);
    fd_ = -1;
    unlink(path_.c_str());
  }
  memory_.clear();
  size_ = 0;
}

}  // namespace uccp::agent
