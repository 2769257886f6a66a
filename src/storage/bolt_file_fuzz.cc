// Any bytes as a bbolt file: never reads outside, always ends.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "storage/bolt_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view file(reinterpret_cast<const char*>(data), size);
  size_t bytes = 0;
  for (const char* bucket : {"key", "lease"}) {
    const auto status = uccp::storage::read_bolt(file, bucket, [&](std::string_view key, std::string_view value) {
      bytes += key.size() + value.size();
      return bytes < (64u << 20);
    });
    if (!status.is_ok() && status.reason() != "BOLT_INVALID") std::abort();
  }
  return 0;
}
