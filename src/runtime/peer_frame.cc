#include "runtime/peer_frame.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"

namespace uccp::runtime {
namespace {

constexpr uint8_t kVersion = 1;
constexpr uint8_t kHelloVersion = 1;
constexpr uint8_t kMoreFlag = 1;
constexpr size_t kChecksummedHeaderBytes = 8;

uint32_t piece_checksum(std::string_view header, std::string_view payload) {
  return crc32c(payload, crc32c(header.substr(0, kChecksummedHeaderBytes)));
}

Status invalid_frame(std::string_view reason, std::string message) {
  return Status(Code::kInvalid, reason, "a peer sent " + std::move(message));
}

}  // namespace

std::string encode_peer_hello(const PeerHello& hello) {
  ByteWriter out;
  out.u8(kHelloVersion).bytes(hello.cluster_id).u64(hello.from.value).u64(hello.to.value).u64(hello.incarnation.value);
  return out.take();
}

Result<PeerHello> decode_peer_hello(std::string_view data) {
  ByteReader in(data);
  const uint8_t version = in.u8();
  PeerHello hello;
  hello.cluster_id = in.bytes();
  hello.from = NodeId(in.u64());
  hello.to = NodeId(in.u64());
  hello.incarnation = Incarnation(in.u64());
  // Later versions may append fields.
  if (!in.ok() || version < kHelloVersion || (version == kHelloVersion && !in.at_end())) {
    return fail(Code::kInvalid, "PEER_HELLO_INVALID",
                "a peer sent a hello of version " + std::to_string(version) + " that cannot be read");
  }
  return hello;
}

void append_peer_piece(std::string& out, PeerFrameKind kind, bool more, std::string_view payload) {
  UCCP_CHECK(payload.size() <= kPeerPieceBytesMax, "a frame is cut into pieces");
  ByteWriter header;
  header.u8(kVersion).u8(static_cast<uint8_t>(kind)).u8(more ? kMoreFlag : 0).u8(0);
  header.u32(static_cast<uint32_t>(payload.size()));
  header.u32(piece_checksum(header.data(), payload));
  out += header.data();
  out += payload;
}

Status PeerFrameDecoder::feed(std::string_view bytes, std::vector<PeerFrame>& frames) {
  // Only the rest of an incomplete piece is copied.
  std::string joined;
  if (!tail_.empty()) {
    joined = std::exchange(tail_, {});
    joined += bytes;
    bytes = joined;
  }
  while (bytes.size() >= kPeerPieceHeaderBytes) {
    ByteReader header(bytes);
    const uint8_t version = header.u8();
    const uint8_t kind = header.u8();
    const uint8_t flags = header.u8();
    const uint8_t zero = header.u8();
    const uint32_t length = header.u32();
    // Before the checksum, which cannot be computed for a length that is not believed.
    if (version != kVersion) {
      return invalid_frame("PEER_FRAME_VERSION", "a frame of version " + std::to_string(version));
    }
    if (kind > static_cast<uint8_t>(PeerFrameKind::kHello) || (flags & ~kMoreFlag) != 0 || zero != 0) {
      return invalid_frame("PEER_FRAME_INVALID", "a frame with a header that cannot be read");
    }
    if (length > kPeerPieceBytesMax) {
      return invalid_frame("PEER_FRAME_TOO_LARGE", "a piece of " + std::to_string(length) + " bytes");
    }
    const size_t piece_bytes = kPeerPieceHeaderBytes + length;
    if (bytes.size() < piece_bytes) break;
    UCCP_RETURN_IF_ERROR(take_piece(bytes.substr(0, piece_bytes), frames));
    bytes.remove_prefix(piece_bytes);
  }
  tail_ = bytes;
  return Status::ok();
}

Status PeerFrameDecoder::take_piece(std::string_view piece, std::vector<PeerFrame>& frames) {
  ByteReader header(piece.substr(kChecksummedHeaderBytes));
  const std::string_view payload = piece.substr(kPeerPieceHeaderBytes);
  if (header.u32() != piece_checksum(piece, payload)) {
    return invalid_frame("PEER_FRAME_CHECKSUM", "a frame with a wrong checksum");
  }
  const auto kind = static_cast<PeerFrameKind>(piece[1]);
  const bool more = (piece[2] & kMoreFlag) != 0;
  std::string& frame = partial_[static_cast<size_t>(kind)];
  const size_t limit = kind == PeerFrameKind::kHello ? kPeerHelloBytesMax : frame_bytes_max_;
  if (frame.size() + payload.size() > limit) {
    return invalid_frame("PEER_FRAME_TOO_LARGE", "a frame of more than " + std::to_string(limit) + " bytes");
  }
  // Otherwise a peer could make this node loop over endless pieces of nothing.
  if (more && payload.empty()) return invalid_frame("PEER_FRAME_INVALID", "an empty piece that is not the last");
  frame += payload;
  if (!more) frames.push_back({kind, std::exchange(frame, {})});
  return Status::ok();
}

bool PeerQueue::push(NetworkLane lane, std::string frame) {
  Lane& to = lanes_[static_cast<size_t>(lane)];
  // Frames cost a little even when they are empty.
  const size_t cost = frame.size() + kPeerPieceHeaderBytes;
  if (!to.frames.empty() && to.bytes + cost > bytes_max_[static_cast<size_t>(lane)]) return false;
  to.bytes += cost;
  to.frames.push_back(std::move(frame));
  return true;
}

std::string PeerQueue::take(size_t bytes) {
  std::string out;
  while (out.size() < bytes && !empty()) {
    const size_t index = lanes_[0].frames.empty() ? 1 : 0;
    Lane& lane = lanes_[index];
    const std::string_view left = std::string_view(lane.frames.front()).substr(lane.sent);
    const std::string_view piece = left.substr(0, kPeerPieceBytesMax);
    const bool more = piece.size() < left.size();
    append_peer_piece(out, static_cast<PeerFrameKind>(index), more, piece);
    lane.sent += piece.size();
    if (more) continue;
    lane.bytes -= lane.frames.front().size() + kPeerPieceHeaderBytes;
    lane.frames.pop_front();
    lane.sent = 0;
  }
  return out;
}

size_t PeerQueue::clear() {
  const size_t dropped = lanes_[0].frames.size() + lanes_[1].frames.size();
  lanes_ = {};
  return dropped;
}

}  // namespace uccp::runtime
