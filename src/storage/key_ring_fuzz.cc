// Any bytes as a file of data keys: refused, or read and written again as the same keys.
#include <cstdint>
#include <cstdlib>

#include "base/bytes.h"
#include "storage/key_ring.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const SecretKey master = *SecretKey::parse(std::string(64, 'a'));
  const auto check = [&](std::string_view file) {
    const auto ring = storage::KeyRing::decode(file, master);
    if (ring && ring->encode(master) != file) std::abort();
  };
  check(bytes);
  // The checksum keeps a fuzzer out: add it.
  check(ByteWriter().raw(bytes).u32(crc32c(bytes)).data());
  return 0;
}
