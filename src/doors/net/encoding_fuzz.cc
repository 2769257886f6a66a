// Bodies that call themselves gzip or brotli, and headers about encodings: nothing grows beyond its limit, and what was
// packed comes out as it was.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "doors/net/encoding.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp::doors;
  constexpr size_t kMax = 1 << 16;
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  for (const Encoding encoding : {Encoding::kNone, Encoding::kGzip, Encoding::kBrotli}) {
    const auto out = decode(encoding, bytes, kMax);
    UCCP_CHECK(!out || encoding == Encoding::kNone || out->size() <= kMax, "the limit holds");
    if (size <= kMax) UCCP_CHECK(*decode(encoding, encode(encoding, bytes), kMax) == bytes, "it comes out as it was");
  }
  (void)accepted_encoding(bytes);
  (void)content_encoding(bytes);
  return 0;
}
