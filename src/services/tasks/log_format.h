// The stored output of one attempt: what the agent writes while it runs and what the server reads once it is uploaded.
//
// A log is a header of 8 bytes ("UCCPLOG" and the version) and then records, each
//   crc32c u32 | length u32 | time_us u64 | stream u8 | bytes
// in big endian; the crc covers everything behind it, `length` counts the bytes. Invariants: records are in the order
// in which the agent read the output; a record is never changed; the position of a record is its byte offset in the
// log, so a cursor stays valid while the log grows and after it was uploaded. A log may end inside a record when the
// machine crashed; what is before it is whole. Pure functions of their input; callable from any thread.
// docs/design/agent.md describes the format.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace uccp::tasks {

inline constexpr std::string_view kLogMagic = "UCCPLOG";
inline constexpr uint8_t kLogVersion = 1;
inline constexpr size_t kLogHeaderBytes = 8;
inline constexpr size_t kLogRecordHeaderBytes = 17;
// Bytes of output in one record.
inline constexpr size_t kLogRecordBytesMax = 256u << 10;

enum class LogStreamKind : uint8_t {
  kStdout = 1,
  kStderr = 2,
  kNotice = 3,  // said by the agent, not by the task: the output was cut here
};

struct LogRecord {
  int64_t time_us = 0;  // wall clock of the worker
  LogStreamKind stream = LogStreamKind::kStdout;
  std::string_view bytes;
};

std::string log_header();
// Requires: record.bytes has at most kLogRecordBytesMax bytes.
void append_log_record(std::string& out, const LogRecord& record);
inline constexpr size_t log_record_size(size_t payload) { return kLogRecordHeaderBytes + payload; }

// Reads records from a piece of a log.
class LogReader {
 public:
  // `data` begins at position `offset` of the log, which must be 0, or the position of a record. The reader keeps
  // pointing into `data`.
  LogReader(std::string_view data, uint64_t offset);

  // The next record; nothing at the end of the data and when only a part of a record is left. Errors: corruption
  // LOG_HEADER_INVALID, LOG_RECORD_INVALID.
  Result<std::optional<LogRecord>> next();
  // Position behind the last record that next() returned: where to go on when there is more data.
  uint64_t position() const { return position_; }

 private:
  std::string_view rest_;
  uint64_t position_;
};

}  // namespace uccp::tasks
