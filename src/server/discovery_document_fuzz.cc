// Any bytes as the discovery document of an issuer: refused for one reason, or the address of the keys it names.
#include <cstdint>
#include <string>

#include "base/check.h"
#include "server/discovery_document.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto url = uccp::server::keys_url(text, "https://issuer");
  if (!url) UCCP_CHECK(url.error().reason() == "DISCOVERY_INVALID", "every refusal has one reason");
  else UCCP_CHECK(text.find("jwks_uri") != std::string::npos, "the document names its keys");
  return 0;
}
