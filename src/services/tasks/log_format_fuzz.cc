// Logs of attempts, as workers send and store them: any bytes are records up to where they are damaged, and a log that
// was written is read back, wherever it is cut.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "services/tasks/log_format.h"

namespace {

using namespace uccp;

// The bytes of all records up to the end or the first damage, and where that is.
uint64_t read_all(std::string_view log, uint64_t offset, std::string& bytes) {
  tasks::LogReader reader(log, offset);
  for (;;) {
    const uint64_t before = reader.position();
    const auto record = reader.next();
    if (!record) {
      UCCP_CHECK(record.error().code() == Code::kCorruption, "what is wrong with bytes is damage");
      return before;
    }
    if (!*record) return reader.position();
    UCCP_CHECK(reader.position() > before && reader.position() - offset <= log.size(),
               "a reader goes on inside its data");
    bytes += (*record)->bytes;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  std::string bytes;
  (void)read_all(input, 0, bytes);
  (void)read_all(input, tasks::kLogHeaderBytes, bytes);
  if (size < 2) return 0;
  // The checksum keeps a fuzzer out: its bytes as the content of two records, and a cut anywhere.
  const std::string_view content = input.substr(2);
  const size_t half = content.size() * data[0] / 256;
  std::string log = tasks::log_header();
  tasks::append_log_record(log,
                           {.time_us = 1, .stream = tasks::LogStreamKind::kStdout, .bytes = content.substr(0, half)});
  tasks::append_log_record(log, {.time_us = 2, .stream = tasks::LogStreamKind::kStderr, .bytes = content.substr(half)});
  const std::string_view first = std::string_view(log).substr(0, log.size() * data[1] / 255);
  std::string read;
  const uint64_t position = read_all(first, 0, read);
  UCCP_CHECK(position <= log.size(), "a position is inside the log");
  UCCP_CHECK(read_all(std::string_view(log).substr(position), position, read) == log.size() && read == content,
             "a log that was cut is read to its end when the rest is there");
  return 0;
}
