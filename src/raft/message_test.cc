#include "raft/message.h"

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/random.h"

namespace uccp::raft {
namespace {

Message sample() {
  Message message;
  message.kind = MessageKind::kAppend;
  message.from = NodeId(1);
  message.to = NodeId(2);
  message.term = Term(7);
  message.log = {Term(5), LogIndex(300)};
  message.commit = LogIndex(299);
  message.entries = {{Term(5), LogIndex(301), EntryKind::kCommand, "x"},
                     {Term(7), LogIndex(302), EntryKind::kNoop, ""}};
  return message;
}

TEST(MessageTest, EveryFieldSurvivesTheWire) {
  Message message = sample();
  EXPECT_EQ(decode_message(encode_message(message)).value(), message);
  for (int kind = 1; kind <= static_cast<int>(MessageKind::kSnapshotOffer); ++kind) {
    message.kind = static_cast<MessageKind>(kind);
    if (message.kind != MessageKind::kAppend) message.entries.clear();
    message.index = LogIndex(UINT64_MAX);
    message.context = UINT64_MAX;
    message.refused = kind % 2 == 0;
    message.transfer = kind % 3 == 0;
    EXPECT_EQ(decode_message(encode_message(message)).value(), message) << to_string(message);
    if (kind == 1) message = sample();
  }
}

TEST(MessageTest, EncodingIsStable) {
  EXPECT_EQ(to_hex(encode_message(sample())), "01010001020705ac0200ab02000205010178070200");
}

TEST(MessageTest, AnEntryTravelsPackedOnlyIfTheReceiverUnderstandsIt) {
  Message message = sample();
  message.entries[0].packed = std::make_shared<const PackedData>(PackedData{1, "small"});
  EXPECT_EQ(to_hex(encode_message(message)), "01010001020705ac0200ab02000205010178070200");
  const std::string packed = encode_message(message, EntryForm::kPacked);
  EXPECT_EQ(to_hex(packed),
            "01010001020705ac0200ab0200020511"
            "05736d616c6c"
            "070200");
  const Message decoded = decode_message(packed).value();
  ASSERT_NE(decoded.entries[0].packed, nullptr);
  EXPECT_EQ(decoded.entries[0].packed->encoding, 1);
  EXPECT_EQ(decoded.entries[0].packed->bytes, "small");
  EXPECT_EQ(decoded.entries[0].data, "");
  EXPECT_EQ(encode_message(decoded, EntryForm::kPacked), packed);
  EXPECT_EQ(decoded.entries[1].packed, nullptr);
}

TEST(MessageTest, AnEntryThatDoesNotBecomeSmallerTravelsAsItIs) {
  Message message = sample();
  message.entries[0].packed = std::make_shared<const PackedData>();
  EXPECT_EQ(encode_message(message, EntryForm::kPacked), encode_message(sample()));
}

TEST(MessageTest, WhatIsPackedInAnotherWayIsRefused) {
  Message message = sample();
  message.entries[0].packed = std::make_shared<const PackedData>(PackedData{3, "x"});
  EXPECT_FALSE(decode_message(encode_message(message, EntryForm::kPacked)));
  message.entries[0].packed = std::make_shared<const PackedData>(PackedData{1, "x"});
  message.entries[0].kind = EntryKind::kConfiguration;
  EXPECT_FALSE(decode_message(encode_message(message, EntryForm::kPacked))) << "memberships are read before unpacking";
}

TEST(MessageTest, CutOrExtendedBytesAreRefused) {
  const std::string good = encode_message(sample());
  for (size_t cut = 0; cut < good.size(); ++cut) EXPECT_FALSE(decode_message(good.substr(0, cut))) << cut;
  EXPECT_FALSE(decode_message(good + "x"));
}

TEST(MessageTest, EntriesOutOfOrderAreRefused) {
  Message message = sample();
  message.entries[1].term = Term(4);
  EXPECT_FALSE(decode_message(encode_message(message)));
  message.entries[1].term = Term(8);
  EXPECT_FALSE(decode_message(encode_message(message)));
  message = sample();
  message.kind = MessageKind::kHeartbeat;
  EXPECT_FALSE(decode_message(encode_message(message)));
}

TEST(MessageTest, DamagedBytesNeverCrashAndDecodeToWhatEncodesAgain) {
  SeededRandom random(3);
  for (int i = 0; i < 50000; ++i) {
    std::string bytes = encode_message(sample());
    for (uint64_t flips = 1 + random.below(4); flips > 0; --flips) {
      bytes[random.below(bytes.size())] = static_cast<char>(random.next());
    }
    const Result<Message> decoded = decode_message(bytes);
    if (!decoded) continue;
    ASSERT_EQ(decode_message(encode_message(*decoded, EntryForm::kPacked)).value(), *decoded);
  }
}

}  // namespace
}  // namespace uccp::raft
