// Rows of a log in a table, and packed pieces: any bytes either decode, and encode to the same row, or are refused.
#include <cstdint>
#include <cstdlib>

#include "storage/table_format.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp;
  using namespace uccp::storage;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (size == 0) return 0;
  (void)unpack(static_cast<Encoding>(data[0] % 4), bytes.substr(1));
  (void)table::parse_format(bytes);
  if (const auto key = table::parse_entry_key(bytes)) {
    if (table::entry_key(key->group, key->index) != bytes) std::abort();
  }
  if (const auto group = table::parse_group_key(bytes)) {
    if (table::group_key(*group) != bytes) std::abort();
  }
  const GroupId group{1};
  if (const auto row = table::parse_group(group, bytes)) {
    if (table::encode_group(group, *row) != bytes) std::abort();
  }
  (void)table::parse_entry(group, LogIndex(1), bytes);
  return 0;
}
