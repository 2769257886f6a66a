// API keys and refresh tokens that strangers send: the two parts are those of the text, and neither is empty.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "services/identity/identity_directory.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp::identity;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const std::string_view prefix : {kApiKeyPrefix, kRefreshPrefix}) {
    SecretParts parts;
    if (!split_secret(text, prefix, parts)) continue;
    UCCP_CHECK(std::string(prefix) + parts.id + "_" + parts.secret == text, "nothing is lost between the parts");
    UCCP_CHECK(!parts.secret.empty(), "a secret is not empty");
  }
  return 0;
}
