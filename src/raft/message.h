// What the members of a group say to each other, and its canonical binary form.
//
// One struct serves all kinds; which fields a kind uses is written at the field, the others are zero. The group, the
// sender's authentication and a checksum belong to the frame that the host puts around it.
// Follows: Ongaro (2014), figures 3.1 and 9.2 (pre-vote), section 3.10 (TimeoutNow), section 6.4 (heartbeat rounds).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/log_types.h"
#include "base/status.h"

namespace uccp::raft {

// The numbers are part of the wire format.
enum class MessageKind : uint8_t {
  kAppend = 1,
  kAppendResponse = 2,
  kHeartbeat = 3,
  kHeartbeatResponse = 4,
  kVote = 5,
  kVoteResponse = 6,
  kPreVote = 7,
  kPreVoteResponse = 8,
  kTimeoutNow = 9,     // the leader hands over: campaign at once
  kSnapshotOffer = 10  // the leader's host has a snapshot at `log` for this follower
};
const char* message_kind_name(MessageKind kind);

struct Message {
  MessageKind kind = MessageKind::kHeartbeat;
  NodeId from;
  NodeId to;
  // The sender's term; of a pre-vote and of its grant: the term that the candidate would start.
  Term term;
  // Append: the entry before `entries`. Vote, pre-vote: the candidate's last entry. Snapshot offer: its position.
  // Refused append: the last entry of the follower, at or below the refused one, that may match (etcd's hint).
  LogPosition log;
  // Append response: the last entry known to match; if refused, the index of the refused `log`.
  // Heartbeat response: for how many milliseconds after the heartbeat the sender refuses votes; 0: no promise.
  LogIndex index;
  // Append, heartbeat: the leader's commit index as far as this follower may use it.
  LogIndex commit;
  // Heartbeat: the round, echoed in the response. 0: a notice of `commit` that is not answered.
  uint64_t context = 0;
  bool refused = false;   // responses only
  bool transfer = false;  // vote: ordered by the old leader, so voters do not protect it
  std::vector<Entry> entries;

  bool operator==(const Message&) const = default;
};

inline constexpr uint8_t kMessageVersion = 1;

// Whether entries that have a packed form travel in it. Receivers of the first release understand plain ones only.
enum class EntryForm : uint8_t { kPlain, kPacked };

// Requires: entries have consecutive indexes from log.index + 1.
std::string encode_message(const Message& message, EntryForm form = EntryForm::kPlain);
// Errors: invalid RAFT_MESSAGE_MALFORMED for everything that encode_message does not write: another version or kind,
// cut or trailing bytes, entries whose terms fall or exceed the message's. An entry that came packed has `packed` and
// no data: who knows how unpacks it before a core sees it.
Result<Message> decode_message(std::string_view bytes);

// "1->2 Append term=3 log=4@2 commit=4 entries=[5@3 command 3]" for scripts and logs.
std::string to_string(const Message& message);
// "4@2": index, then term.
std::string to_string(LogPosition position);

}  // namespace uccp::raft
