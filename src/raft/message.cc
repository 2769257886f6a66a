#include "raft/message.h"

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/check.h"

namespace uccp::raft {
namespace {

constexpr uint8_t kRefusedFlag = 1;
constexpr uint8_t kTransferFlag = 2;
// An entry's byte: kind in the low half, in the high half how its data is packed.
constexpr int kEncodingShift = 4;
constexpr uint8_t kEntryKindMask = 0x0f;
constexpr uint8_t kEncodingMax = 2;

std::unexpected<Status> malformed(std::string what) {
  return fail(Code::kInvalid, "RAFT_MESSAGE_MALFORMED", "decoding a raft message: " + what);
}

const char* entry_kind_name(EntryKind kind) {
  switch (kind) {
    case EntryKind::kCommand: return "command";
    case EntryKind::kNoop: return "noop";
    case EntryKind::kConfiguration: return "configuration";
  }
  return "unknown";
}

}  // namespace

const char* message_kind_name(MessageKind kind) {
  switch (kind) {
    case MessageKind::kAppend: return "Append";
    case MessageKind::kAppendResponse: return "AppendResponse";
    case MessageKind::kHeartbeat: return "Heartbeat";
    case MessageKind::kHeartbeatResponse: return "HeartbeatResponse";
    case MessageKind::kVote: return "Vote";
    case MessageKind::kVoteResponse: return "VoteResponse";
    case MessageKind::kPreVote: return "PreVote";
    case MessageKind::kPreVoteResponse: return "PreVoteResponse";
    case MessageKind::kTimeoutNow: return "TimeoutNow";
    case MessageKind::kSnapshotOffer: return "SnapshotOffer";
  }
  return "unknown";
}

std::string encode_message(const Message& message, EntryForm form) {
  ByteWriter out;
  out.u8(kMessageVersion).u8(static_cast<uint8_t>(message.kind));
  out.u8(static_cast<uint8_t>((message.refused ? kRefusedFlag : 0) | (message.transfer ? kTransferFlag : 0)));
  out.varint(message.from.value).varint(message.to.value).varint(message.term.value);
  out.varint(message.log.term.value).varint(message.log.index.value);
  out.varint(message.index.value).varint(message.commit.value).varint(message.context);
  out.varint(message.entries.size());
  uint64_t index = message.log.index.value;
  for (const Entry& entry : message.entries) {
    UCCP_CHECK(entry.index.value == ++index, "the entries of a message follow its log position");
    const bool packed = form == EntryForm::kPacked && entry.packed != nullptr && entry.packed->encoding != 0;
    const int encoding = packed ? entry.packed->encoding : 0;
    out.varint(entry.term.value).u8(static_cast<uint8_t>(static_cast<int>(entry.kind) | encoding << kEncodingShift));
    out.bytes(packed ? entry.packed->bytes : entry.data);
  }
  return out.take();
}

Result<Message> decode_message(std::string_view bytes) {
  ByteReader in(bytes);
  const uint8_t version = in.u8();
  if (in.ok() && version != kMessageVersion) return malformed(fmt::format("version {} is not known here", version));
  Message message;
  const uint8_t kind = in.u8();
  const uint8_t flags = in.u8();
  if (kind < 1 || kind > static_cast<uint8_t>(MessageKind::kSnapshotOffer)) {
    return malformed(fmt::format("kind {} is not known", kind));
  }
  if ((flags & ~(kRefusedFlag | kTransferFlag)) != 0) return malformed(fmt::format("flags {} are not known", flags));
  message.kind = static_cast<MessageKind>(kind);
  message.refused = (flags & kRefusedFlag) != 0;
  message.transfer = (flags & kTransferFlag) != 0;
  message.from = NodeId(in.varint());
  message.to = NodeId(in.varint());
  message.term = Term(in.varint());
  message.log.term = Term(in.varint());
  message.log.index = LogIndex(in.varint());
  message.index = LogIndex(in.varint());
  message.commit = LogIndex(in.varint());
  message.context = in.varint();
  const uint64_t count = in.varint();
  // An entry takes three bytes at least, so a lying count cannot make this allocate more than the frame's size.
  if (!in.ok() || count > in.remaining() / 3) return malformed("it is cut short");
  if (count > 0 && message.kind != MessageKind::kAppend) return malformed("only an append carries entries");
  if (message.log.index.value > UINT64_MAX - count - 1) return malformed("its log position is too large");
  message.entries.reserve(count);
  LogPosition previous = message.log;
  for (uint64_t i = 0; i < count; ++i) {
    Entry entry;
    entry.term = Term(in.varint());
    const uint8_t form = in.u8();
    const uint8_t entry_kind = form & kEntryKindMask, encoding = form >> kEncodingShift;
    entry.index = previous.index.next();
    const std::string_view data = in.bytes();
    if (!in.ok()) return malformed("an entry is cut short");
    if (entry_kind < 1 || entry_kind > 3) return malformed(fmt::format("entry kind {} is not known", entry_kind));
    if (encoding == 0) entry.data = data;
    else entry.packed = std::make_shared<const PackedData>(encoding, std::string(data));
    if (encoding > kEncodingMax || (encoding != 0 && entry_kind != static_cast<uint8_t>(EntryKind::kCommand))) {
      return malformed(fmt::format("an entry of kind {} is packed as {}", entry_kind, encoding));
    }
    if (entry.term < previous.term || entry.term > message.term)
      return malformed("the terms of its entries are out of order");
    entry.kind = static_cast<EntryKind>(entry_kind);
    previous = {entry.term, entry.index};
    message.entries.push_back(std::move(entry));
  }
  if (!in.at_end()) return malformed("bytes follow its end");
  return message;
}

std::string to_string(LogPosition position) { return fmt::format("{}@{}", position.index.value, position.term.value); }

std::string to_string(const Message& message) {
  std::string out = fmt::format("{}->{} {} term={}", message.from.value, message.to.value,
                                message_kind_name(message.kind), message.term.value);
  if (message.log.index) out += " log=" + to_string(message.log);
  const bool promise = message.kind == MessageKind::kHeartbeatResponse;
  if (message.index) out += fmt::format(" {}={}", promise ? "promise_ms" : "index", message.index.value);
  if (message.commit) out += fmt::format(" commit={}", message.commit.value);
  if (message.context != 0) out += fmt::format(" round={}", message.context);
  if (message.refused) out += " refused";
  if (message.transfer) out += " transfer";
  if (!message.entries.empty()) {
    out += " entries=[";
    for (const Entry& entry : message.entries) {
      if (out.back() != '[') out += ", ";
      out += to_string(LogPosition{entry.term, entry.index});
      out += ' ';
      out += entry_kind_name(entry.kind);
    }
    out += "]";
  }
  return out;
}

}  // namespace uccp::raft
