// What nodes say to each other beside raft messages, and the frames that carry both. docs/formats/peer_message.md
//
// A frame goes from one node to another and holds items of any groups. Decoding trusts nothing: a frame that is not
// what the encoder writes is refused whole.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/hash.h"
#include "base/ids.h"
#include "base/log_types.h"
#include "base/status.h"
#include "raft/membership.h"

namespace uccp::node {

// The numbers are part of the wire format.
enum class PeerItemKind : uint8_t {
  kRaft = 1,
  kRequest = 2,
  kReply = 3,
  kSnapshotPull = 4,
  kSnapshotChunk = 5,
  kSnapshotEnd = 6,
  kDigest = 7,
  kVerdict = 8,
};
inline constexpr uint8_t kPeerItemKinds = 8;

struct PeerItem {
  GroupId group;
  PeerItemKind kind = PeerItemKind::kRaft;
  std::string_view body;
};

// Builds one frame.
class FrameWriter {
 public:
  void add(GroupId group, PeerItemKind kind, std::string_view body);
  bool empty() const { return items_.empty(); }
  size_t bytes() const { return items_.size(); }
  // The frame; the writer is empty afterwards.
  std::string take();

 private:
  std::string items_;
};

// The items point into `frame`. Errors: invalid PEER_FRAME_MALFORMED.
Result<std::vector<PeerItem>> read_frame(std::string_view frame);

// Asks the group's leader for something. Answered by a Reply with the same token, or never.
struct PeerRequest {
  enum class Kind : uint8_t { kReadIndex = 1, kChangeMembership = 2, kTransfer = 3 };
  uint64_t token = 0;
  Kind kind = Kind::kReadIndex;
  raft::MembershipChange change;  // kChangeMembership
  NodeId node;                    // kTransfer

  bool operator==(const PeerRequest&) const = default;
};

struct PeerReply {
  uint64_t token = 0;
  Status status;   // code, reason, message, leader hint and delay go over the wire
  LogIndex index;  // of the read or of the change
};

// Receiver to sender: the chunks before `next` are here. Asks for more, and begins or resumes the transfer.
struct SnapshotPull {
  LogPosition position;
  uint64_t next = 0;

  bool operator==(const SnapshotPull&) const = default;
};
struct SnapshotChunk {
  LogPosition position;
  std::string_view data;
};
// Receiver to sender: the snapshot is installed or has failed.
struct SnapshotEnd {
  LogPosition position;
  bool installed = false;

  bool operator==(const SnapshotEnd&) const = default;
};

// The digest of the sender's state at `index`; as a verdict of the leader: what it has to be.
struct DigestReport {
  LogIndex index;
  Digest digest;
  bool majority = true;  // verdict only; false: no digest has a majority

  bool operator==(const DigestReport&) const = default;
};

std::string encode(const PeerRequest& request);
std::string encode(const PeerReply& reply);
std::string encode(const SnapshotPull& pull);
std::string encode(const SnapshotChunk& chunk);
std::string encode(const SnapshotEnd& end);
std::string encode(const DigestReport& report);

// Errors: invalid PEER_MESSAGE_MALFORMED.
Result<PeerRequest> decode_request(std::string_view body);
Result<PeerReply> decode_reply(std::string_view body);
Result<SnapshotPull> decode_pull(std::string_view body);
Result<SnapshotChunk> decode_chunk(std::string_view body);
Result<SnapshotEnd> decode_end(std::string_view body);
Result<DigestReport> decode_report(std::string_view body);

}  // namespace uccp::node
