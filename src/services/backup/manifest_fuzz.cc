// Any bytes as a manifest: refused, or read and written again as the same manifest, with names that are safe in paths.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "services/backup/manifest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp;
  const auto manifest = backup::decode_manifest({reinterpret_cast<const char*>(data), size});
  if (!manifest) return 0;
  for (const auto& part : manifest->groups)
    UCCP_CHECK(part.file.find('/') == std::string::npos, "a file stays in its folder");
  const auto again = backup::decode_manifest(backup::encode(*manifest));
  UCCP_CHECK(again && *again == *manifest, "a manifest is written as it was read");
  return 0;
}
