// Any bytes as the chunks of a snapshot: installing them ends with success or an error, and touches one slot only.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/bytes.h"
#include "base/check.h"
#include "machine/snapshot.h"
#include "storage/memory/memory_kv.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  storage::MemoryKv kv;
  machine::SnapshotWriter writer(GroupId(1), kv, 1);
  (void)writer.add(bytes);
  // The checksum keeps a fuzzer out: add it.
  (void)writer.add(ByteWriter().u8(2).u32(crc32c(bytes)).raw(bytes).take());
  const auto view = kv.view();
  const auto it = view->iterate();
  for (it->seek(""); it->valid(); it->next()) {
    UCCP_CHECK(it->key().starts_with(machine::group_prefix(GroupId(1), 1)), "a snapshot stays in its slot");
  }
  return 0;
}
