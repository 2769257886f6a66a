// What comes from another agent: nothing of it is taken for more than it says.
#include <cstddef>
#include <cstdint>
#include <string>

#include "agent/object_frames.h"
#include "base/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp;
  using namespace uccp::agent;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  if (const auto head = parse_frame_head(input.substr(0, kFrameHeadBytes)))
    UCCP_CHECK(head->body_bytes <= kFrameBytesMax, "no frame is larger than frames may be");
  if (const auto location = parse_location(input)) {
    const std::string bytes = encode(*location);
    if (bytes.size() <= kLocationBytesMax)
      UCCP_CHECK(parse_location(bytes).value() == *location, "a location that is written is read again");
  }
  std::string out(64, '\0');
  const auto taken = take_chunk(input, 0, out);
  UCCP_CHECK(!taken || (*taken > 0 && *taken <= out.size()), "a chunk has what there was place for");
  for (const auto& [tag, content] : fields_of(input)) UCCP_CHECK(content.size() < size, "a field is in its body");
  (void)id_of(input);
  (void)number_of(input, 's');
  (void)error_of(input);
  return 0;
}
