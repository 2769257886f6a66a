// Any bytes as a frame from a peer: no decoder may fail other than by an error.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "node/peer_message.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp::node;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  (void)read_frame(bytes);
  // The checksum keeps a fuzzer out: frame its bytes as well.
  FrameWriter writer;
  writer.add(uccp::GroupId(1), PeerItemKind::kRaft, bytes);
  const std::string frame = writer.take();
  const auto items = read_frame(frame);
  UCCP_CHECK(items && items->size() == 1 && items->front().body == bytes, "what was framed is read back");
  (void)decode_request(bytes);
  (void)decode_reply(bytes);
  (void)decode_pull(bytes);
  (void)decode_chunk(bytes);
  (void)decode_end(bytes);
  (void)decode_report(bytes);
  return 0;
}
