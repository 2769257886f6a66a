// The output of one attempt on the worker, in the format of services/tasks/log_format.h.
//
// Small output stays in memory and never touches the disk; beyond kMemoryBytesMax it moves to a file, as it does when
// the attempt has to be kept over a restart. Invariants: the log is header and whole records at any time; its size
// never passes bytes_max plus one notice, which says that the rest was dropped; positions never change. Thread: one.
// Appends write to the page cache; only sync() waits for the disk.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "services/tasks/log_format.h"

namespace uccp::agent {

inline constexpr uint64_t kLogBytesMaxDefault = 64ull << 20;

class AttemptLog {
 public:
  static constexpr size_t kMemoryBytesMax = 64u << 10;

  // `path` is where the file will be if there has to be one.
  AttemptLog(std::string path, uint64_t bytes_max);
  // Closes the file and leaves it.
  ~AttemptLog();
  AttemptLog(const AttemptLog&) = delete;
  AttemptLog& operator=(const AttemptLog&) = delete;

  void append(tasks::LogStreamKind stream, int64_t time_us, std::string_view bytes);
  // Bytes of the log from `position`, at most `size_max`; empty at the end. Errors: unavailable IO_ERROR.
  Result<std::string> read(uint64_t position, size_t size_max) const;
  // Moves the log into its file, synced. Nothing happens without output.
  Status persist();
  // Removes the file, if any. The log is unusable afterwards.
  void remove();

  uint64_t size() const { return size_; }  // 0 without output
  uint64_t records() const { return records_; }
  uint64_t stdout_bytes() const { return stdout_bytes_; }
  uint64_t stderr_bytes() const { return stderr_bytes_; }
  bool truncated() const { return truncated_; }
  bool in_file() const { return fd_ >= 0; }
  const std::string& path() const { return path_; }
  // The whole log while it is in memory.
  const std::string& memory() const { return memory_; }

 private:
  void cut(int64_t time_us, std::string_view why);
  bool write(std::string_view data);
  Status spill();

  const std::string path_;
  const uint64_t bytes_max_;
  std::string memory_;
  int fd_ = -1;
  uint64_t size_ = 0;
  uint64_t records_ = 0;
  uint64_t stdout_bytes_ = 0;
  uint64_t stderr_bytes_ = 0;
  bool truncated_ = false;
};

}  // namespace uccp::agent
