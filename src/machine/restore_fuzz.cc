// Any bytes as the stream of a restore: chunks come out or it is refused, and what is a chunk goes back to the same
// bytes.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "machine/restore.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  machine::ChunkReader reader;
  machine::SnapshotCheck check(GroupId(1));
  std::string again;
  bool sound = true;
  // In two parts, as pieces come.
  for (const std::string_view part : {bytes.substr(0, size / 2), bytes.substr(size / 2)}) {
    reader.add(part);
    while (true) {
      const auto chunk = reader.next();
      if (!chunk) return 0;
      if (!*chunk) break;
      again += machine::frame_chunk(**chunk);
      sound = sound && check.add(**chunk).is_ok();
    }
  }
  if (bytes.substr(0, again.size()) != again) std::abort();
  return 0;
}
