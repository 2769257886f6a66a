// Messages in a stream of bytes: never crashes, and how the bytes are cut changes nothing.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "doors/grpc/grpc_wire.h"

namespace {

struct Heard {
  std::vector<std::string> messages;
  bool ok = true;
  bool operator==(const Heard&) const = default;
};

Heard hear(std::string_view bytes, size_t step, uccp::doors::MessageEncoding encoding) {
  uccp::doors::MessageReader reader(1 << 16);
  reader.set_encoding(encoding);
  Heard heard;
  while (!bytes.empty() && heard.ok) {
    const size_t taken = std::min(step, bytes.size());
    heard.ok = reader
                   .feed(bytes.substr(0, taken),
                         [&](std::string message) {
                           heard.messages.push_back(std::move(message));
                           return true;
                         })
                   .is_ok();
    bytes.remove_prefix(taken);
  }
  return heard;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto encoding =
      (data[0] & 1) != 0 ? uccp::doors::MessageEncoding::kGzip : uccp::doors::MessageEncoding::kIdentity;
  const size_t step = 1 + (data[0] >> 1);
  if (hear(bytes, step, encoding) != hear(bytes, size, encoding)) std::abort();
  (void)uccp::doors::parse_timeout_us(bytes);
  return 0;
}
