// What somebody sends to the port of nodes: pieces and the first frame, in one part or in many, which make no
// difference.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "runtime/peer_frame.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp::runtime;
  constexpr size_t kFrameBytesMax = 1 << 16;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  if (const auto hello = decode_peer_hello(input)) {
    UCCP_CHECK(decode_peer_hello(encode_peer_hello(*hello)) == *hello, "what is taken is written as it was meant");
  }
  std::vector<PeerFrame> whole, parts;
  PeerFrameDecoder at_once(kFrameBytesMax), by_parts(kFrameBytesMax);
  const bool taken = at_once.feed(input, whole).is_ok();
  bool taken_by_parts = true;
  const size_t part = 1 + size % 7;
  for (size_t at = 0; at < size && taken_by_parts; at += part) {
    taken_by_parts = by_parts.feed(input.substr(at, part), parts).is_ok();
  }
  UCCP_CHECK(taken == taken_by_parts, "the cuts of a stream mean nothing");
  UCCP_CHECK(whole.size() == parts.size(), "nor do they change how many frames there are");
  for (size_t i = 0; i < whole.size(); ++i) {
    UCCP_CHECK(whole[i].data == parts[i].data && whole[i].data.size() <= kFrameBytesMax, "or what they hold");
  }
  std::string packed;
  append_peer_piece(packed, PeerFrameKind::kControl, false, input.substr(0, std::min(size, kPeerPieceBytesMax)));
  std::vector<PeerFrame> back;
  UCCP_CHECK(PeerFrameDecoder(kPeerPieceBytesMax).feed(packed, back).is_ok() && back.size() == 1, "a piece comes back");
  return 0;
}
