#include "node/peer_message.h"

#include "base/bytes.h"

namespace uccp::node {
namespace {

constexpr uint8_t kFrameVersion = 1;
constexpr size_t kFrameHeaderBytes = 5;

std::unexpected<Status> malformed(std::string_view what) {
  return fail(Code::kInvalid, "PEER_MESSAGE_MALFORMED", "decoding a peer's " + std::string(what) + ": it is malformed");
}

void write_position(ByteWriter& out, LogPosition position) {
  out.varint(position.term.value).varint(position.index.value);
}

LogPosition read_position(ByteReader& in) {
  LogPosition position;
  position.term = Term(in.varint());
  position.index = LogIndex(in.varint());
  return position;
}

bool known(PeerRequest::Kind kind) {
  return kind >= PeerRequest::Kind::kReadIndex && kind <= PeerRequest::Kind::kTransfer;
}

}  // namespace

void FrameWriter::add(GroupId group, PeerItemKind kind, std::string_view body) {
  ByteWriter item;
  item.varint(group.value).u8(static_cast<uint8_t>(kind)).bytes(body);
  items_ += item.data();
}

std::string FrameWriter::take() {
  ByteWriter frame;
  frame.u8(kFrameVersion).u32(crc32c(items_)).raw(items_);
  items_.clear();
  return frame.take();
}

Result<std::vector<PeerItem>> read_frame(std::string_view frame) {
  ByteReader in(frame);
  const uint8_t version = in.u8();
  const uint32_t checksum = in.u32();
  if (!in.ok() || version != kFrameVersion || checksum != crc32c(frame.substr(kFrameHeaderBytes))) {
    return fail(Code::kInvalid, "PEER_FRAME_MALFORMED", "reading a peer's frame: its version or checksum is wrong");
  }
  std::vector<PeerItem> items;
  while (in.ok() && in.remaining() > 0) {
    PeerItem item;
    item.group = GroupId(in.varint());
    const uint8_t kind = in.u8();
    item.body = in.bytes();
    if (!in.ok() || kind < 1 || kind > kPeerItemKinds) {
      return fail(Code::kInvalid, "PEER_FRAME_MALFORMED", "reading a peer's frame: an item is cut off or unknown");
    }
    item.kind = static_cast<PeerItemKind>(kind);
    items.push_back(item);
  }
  return items;
}

std::string encode(const PeerRequest& request) {
  ByteWriter out;
  out.varint(request.token).u8(static_cast<uint8_t>(request.kind)).varint(request.node.value);
  out.varint(request.change.steps.size());
  for (const raft::MembershipStep& step : request.change.steps) {
    out.u8(static_cast<uint8_t>(step.action)).varint(step.node.value);
  }
  return out.take();
}

Result<PeerRequest> decode_request(std::string_view body) {
  ByteReader in(body);
  PeerRequest request;
  request.token = in.varint();
  request.kind = static_cast<PeerRequest::Kind>(in.u8());
  request.node = NodeId(in.varint());
  const uint64_t steps = in.varint();
  if (!in.ok() || !known(request.kind) || steps > in.remaining()) return malformed("request");
  for (uint64_t i = 0; i < steps; ++i) {
    raft::MembershipStep step;
    step.action = static_cast<raft::MembershipAction>(in.u8());
    step.node = NodeId(in.varint());
    request.change.steps.push_back(step);
  }
  if (!in.at_end()) return malformed("request");
  return request;
}

std::string encode(const PeerReply& reply) {
  ByteWriter out;
  out.varint(reply.token).u8(static_cast<uint8_t>(reply.status.code())).varint(reply.index.value);
  out.bytes(reply.status.reason()).bytes(reply.status.message()).bytes(reply.status.detail().leader_hint);
  out.varint(reply.status.detail().retry_after_ms);
  return out.take();
}

Result<PeerReply> decode_reply(std::string_view body) {
  ByteReader in(body);
  PeerReply reply;
  reply.token = in.varint();
  const uint8_t code = in.u8();
  reply.index = LogIndex(in.varint());
  const std::string_view reason = in.bytes();
  const std::string_view message = in.bytes();
  const std::string_view hint = in.bytes();
  const uint64_t retry_after_ms = in.varint();
  if (!in.at_end() || code >= kCodeCount) return malformed("reply");
  if (code == 0) return reply;
  reply.status = Status(static_cast<Code>(code), reason, std::string(message));
  if (!hint.empty()) reply.status = std::move(reply.status).with_leader_hint(std::string(hint));
  if (retry_after_ms > 0)
    reply.status = std::move(reply.status).with_retry_after_ms(static_cast<uint32_t>(retry_after_ms));
  return reply;
}

std::string encode(const SnapshotPull& pull) {
  ByteWriter out;
  write_position(out, pull.position);
  return out.varint(pull.next).take();
}

Result<SnapshotPull> decode_pull(std::string_view body) {
  ByteReader in(body);
  SnapshotPull pull;
  pull.position = read_position(in);
  pull.next = in.varint();
  if (!in.at_end()) return malformed("snapshot request");
  return pull;
}

std::string encode(const SnapshotChunk& chunk) {
  ByteWriter out;
  write_position(out, chunk.position);
  return out.bytes(chunk.data).take();
}

Result<SnapshotChunk> decode_chunk(std::string_view body) {
  ByteReader in(body);
  SnapshotChunk chunk;
  chunk.position = read_position(in);
  chunk.data = in.bytes();
  if (!in.at_end()) return malformed("snapshot chunk");
  return chunk;
}

std::string encode(const SnapshotEnd& end) {
  ByteWriter out;
  write_position(out, end.position);
  return out.u8(end.installed ? 1 : 0).take();
}

Result<SnapshotEnd> decode_end(std::string_view body) {
  ByteReader in(body);
  SnapshotEnd end;
  end.position = read_position(in);
  const uint8_t installed = in.u8();
  if (!in.at_end() || installed > 1) return malformed("end of a snapshot");
  end.installed = installed == 1;
  return end;
}

std::string encode(const DigestReport& report) {
  ByteWriter out;
  out.varint(report.index.value).u64(report.digest.high).u64(report.digest.low).u8(report.majority ? 1 : 0);
  return out.take();
}

Result<DigestReport> decode_report(std::string_view body) {
  ByteReader in(body);
  DigestReport report;
  report.index = LogIndex(in.varint());
  report.digest.high = in.u64();
  report.digest.low = in.u64();
  const uint8_t majority = in.u8();
  if (!in.at_end() || majority > 1) return malformed("digest");
  report.majority = majority == 1;
  return report;
}

}  // namespace uccp::node
