// The wire format between nodes, and the queue of what one peer is still to be sent. docs/formats/peer_frame.md.
//
// A frame travels as pieces of at most 64 KiB, so that control frames can overtake a large bulk frame. A piece is
// version u8 = 1, kind u8, flags u8 (1: more pieces of this frame follow), zero u8, length u32, crc32c u32 over the
// first eight bytes and the payload, payload; numbers are big endian.
// Thread: one at a time; PeerNetwork sees to it.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/network.h"
#include "base/status.h"

namespace uccp::runtime {

enum class PeerFrameKind : uint8_t { kControl = 0, kBulk = 1, kHello = 2 };

inline constexpr size_t kPeerPieceHeaderBytes = 12;
inline constexpr size_t kPeerPieceBytesMax = 64 << 10;
inline constexpr size_t kPeerHelloBytesMax = 1 << 10;

struct PeerFrame {
  PeerFrameKind kind;
  std::string data;
};

// The first frame in both directions: who is there, and whom it means to talk to.
struct PeerHello {
  std::string cluster_id;
  NodeId from;
  NodeId to;
  Incarnation incarnation;

  bool operator==(const PeerHello&) const = default;
};
std::string encode_peer_hello(const PeerHello& hello);
// Errors: invalid PEER_HELLO_INVALID.
Result<PeerHello> decode_peer_hello(std::string_view data);

// Appends a piece. Requires payload.size() <= kPeerPieceBytesMax.
void append_peer_piece(std::string& out, PeerFrameKind kind, bool more, std::string_view payload);

// Makes frames of a stream of bytes. After an error it must not be used again.
class PeerFrameDecoder {
 public:
  explicit PeerFrameDecoder(size_t frame_bytes_max) : frame_bytes_max_(frame_bytes_max) {}

  // Appends the frames that `bytes` complete. Errors, all invalid: PEER_FRAME_VERSION, PEER_FRAME_INVALID,
  // PEER_FRAME_CHECKSUM, PEER_FRAME_TOO_LARGE.
  Status feed(std::string_view bytes, std::vector<PeerFrame>& frames);

 private:
  Status take_piece(std::string_view piece, std::vector<PeerFrame>& frames);

  const size_t frame_bytes_max_;
  std::string tail_;                    // of a piece that is not complete
  std::array<std::string, 3> partial_;  // by kind: the pieces so far
};

// What is to be sent to one peer: a bounded queue a lane.
class PeerQueue {
 public:
  PeerQueue(size_t control_bytes_max, size_t bulk_bytes_max) : bytes_max_{control_bytes_max, bulk_bytes_max} {}

  // False, and the frame is dropped, if the lane has no room for it. An empty lane takes one frame of any size.
  bool push(NetworkLane lane, std::string frame);
  // About `bytes` bytes of pieces, control frames first. Empty if there is nothing to send.
  std::string take(size_t bytes);
  bool empty() const { return lanes_[0].frames.empty() && lanes_[1].frames.empty(); }
  // Drops everything and returns how many frames that were.
  size_t clear();

 private:
  struct Lane {
    std::deque<std::string> frames;
    size_t bytes = 0;
    size_t sent = 0;  // of the first frame
  };
  const std::array<size_t, 2> bytes_max_;
  std::array<Lane, 2> lanes_;
};

}  // namespace uccp::runtime
