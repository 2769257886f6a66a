// What comes from a Redis server, or from one that says it is S3.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "shm/redis_reply.h"
#include "shm/s3_signature.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  std::string_view rest = input;
  while (!rest.empty()) {
    const size_t before = rest.size();
    const auto reply = shm::take_redis_reply(rest);
    if (!reply || !*reply) {
      UCCP_CHECK(rest.size() == before, "what is no whole reply is left");
      break;
    }
    UCCP_CHECK(rest.size() < before, "a reply takes something");
  }
  if (const auto keys = shm::listed_keys(input)) {
    for (const std::string& key : *keys) UCCP_CHECK(key.size() < size && !key.empty(), "keys are in the answer");
  }
  (void)shm::error_in(input);
  return 0;
}
