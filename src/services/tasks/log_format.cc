#include "services/tasks/log_format.h"

#include "base/bytes.h"
#include "base/check.h"

namespace uccp::tasks {
namespace {

uint32_t read_u32(std::string_view data) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<uint8_t>(data[i]);
  return value;
}

void put(std::string& out, uint64_t value, int bytes) {
  for (int shift = (bytes - 1) * 8; shift >= 0; shift -= 8) out.push_back(static_cast<char>(value >> shift));
}

}  // namespace

std::string log_header() {
  std::string header(kLogMagic);
  header.push_back(static_cast<char>(kLogVersion));
  return header;
}

void append_log_record(std::string& out, const LogRecord& record) {
  UCCP_CHECK(record.bytes.size() <= kLogRecordBytesMax, "a log record is bounded");
  const size_t start = out.size();
  put(out, 0, 4);
  put(out, record.bytes.size(), 4);
  put(out, static_cast<uint64_t>(record.time_us), 8);
  out.push_back(static_cast<char>(record.stream));
  out.append(record.bytes);
  const uint32_t crc = crc32c(std::string_view(out).substr(start + 4));
  for (int i = 0; i < 4; ++i) out[start + i] = static_cast<char>(crc >> (24 - 8 * i));
}

LogReader::LogReader(std::string_view data, uint64_t offset) : rest_(data), position_(offset) {}

Result<std::optional<LogRecord>> LogReader::next() {
  if (position_ == 0) {
    if (rest_.size() < kLogHeaderBytes) return std::nullopt;
    if (rest_.substr(0, kLogHeaderBytes) != log_header()) {
      return fail(Code::kCorruption, "LOG_HEADER_INVALID",
                  "an attempt's log begins with other bytes than \"UCCPLOG\" and version 1");
    }
    rest_.remove_prefix(kLogHeaderBytes);
    position_ = kLogHeaderBytes;
  }
  if (rest_.size() < kLogRecordHeaderBytes) return std::nullopt;
  const uint32_t length = read_u32(rest_.substr(4));
  if (length > kLogRecordBytesMax) {
    return fail(Code::kCorruption, "LOG_RECORD_INVALID",
                "the log record at " + std::to_string(position_) + " claims " + std::to_string(length) + " bytes");
  }
  const size_t size = log_record_size(length);
  if (rest_.size() < size) return std::nullopt;
  const std::string_view body = rest_.substr(4, size - 4);
  const uint8_t stream = static_cast<uint8_t>(body[12]);
  if (crc32c(body) != read_u32(rest_) || stream < 1 || stream > 3) {
    return fail(Code::kCorruption, "LOG_RECORD_INVALID",
                "the log record at " + std::to_string(position_) + " fails its checksum");
  }
  LogRecord record;
  record.time_us =
      static_cast<int64_t>(static_cast<uint64_t>(read_u32(body.substr(4))) << 32 | read_u32(body.substr(8)));
  record.stream = static_cast<LogStreamKind>(stream);
  record.bytes = body.substr(13);
  rest_.remove_prefix(size);
  position_ += size;
  return record;
}

}  // namespace uccp::tasks
