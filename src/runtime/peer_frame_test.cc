#include "runtime/peer_frame.h"

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/random.h"

namespace uccp::runtime {
namespace {

std::vector<PeerFrame> decode_in_steps(std::string_view bytes, size_t step) {
  PeerFrameDecoder decoder(1 << 20);
  std::vector<PeerFrame> frames;
  for (size_t at = 0; at < bytes.size(); at += step) {
    EXPECT_TRUE(decoder.feed(bytes.substr(at, step), frames).is_ok());
  }
  return frames;
}

std::string reason(std::string_view bytes, size_t frame_bytes_max = 100) {
  PeerFrameDecoder decoder(frame_bytes_max);
  std::vector<PeerFrame> frames;
  return std::string(decoder.feed(bytes, frames).reason());
}

TEST(PeerFrame, TheFormatIsWhatThePageSays) {
  std::string piece;
  append_peer_piece(piece, PeerFrameKind::kBulk, true, "abc");
  EXPECT_EQ(to_hex(piece.substr(0, 8)), "0101010000000003");
  EXPECT_EQ(to_hex(piece.substr(8, 4)), "36c5f920");
  EXPECT_EQ(piece.substr(12), "abc");
  EXPECT_EQ(to_hex(encode_peer_hello({"c", NodeId(1), NodeId(2), Incarnation(3)})),
            "010163000000000000000100000000000000020000000000000003");
}

TEST(PeerFrame, FramesSurviveAnyCuttingOfTheStream) {
  PeerQueue queue(1 << 20, 1 << 20);
  const std::string large(200'000, 'b');
  ASSERT_TRUE(queue.push(NetworkLane::kBulk, large));
  ASSERT_TRUE(queue.push(NetworkLane::kBulk, ""));
  ASSERT_TRUE(queue.push(NetworkLane::kControl, "first"));
  const std::string bytes = queue.take(1 << 20);
  for (const size_t step : {size_t{1}, size_t{7}, size_t{4096}, size_t{65548}, bytes.size()}) {
    const std::vector<PeerFrame> frames = decode_in_steps(bytes, step);
    ASSERT_EQ(frames.size(), 3u);
    EXPECT_EQ(frames[0].data, "first");
    EXPECT_EQ(frames[1].data, large);
    EXPECT_EQ(frames[2].data, "");
  }
}

TEST(PeerFrame, AControlFrameOvertakesABulkFrameInTheMiddle) {
  PeerQueue queue(1 << 20, 1 << 20);
  ASSERT_TRUE(queue.push(NetworkLane::kBulk, std::string(200'000, 'b')));
  std::string bytes = queue.take(1);
  ASSERT_TRUE(queue.push(NetworkLane::kControl, "urgent"));
  bytes += queue.take(1 << 20);
  const std::vector<PeerFrame> frames = decode_in_steps(bytes, 1000);
  ASSERT_EQ(frames.size(), 2u);
  EXPECT_EQ(frames[0].data, "urgent");
  EXPECT_EQ(frames[1].data.size(), 200'000u);
}

TEST(PeerFrame, AFullLaneRefusesAndTheOtherDoesNotCare) {
  PeerQueue queue(100, 100);
  EXPECT_TRUE(queue.push(NetworkLane::kBulk, std::string(1000, 'x'))) << "an empty lane takes one frame of any size";
  EXPECT_FALSE(queue.push(NetworkLane::kBulk, "x"));
  EXPECT_TRUE(queue.push(NetworkLane::kControl, "x"));
  (void)queue.take(1 << 20);
  EXPECT_TRUE(queue.push(NetworkLane::kBulk, "x")) << "room comes back";
  EXPECT_EQ(queue.clear(), 1u);
  EXPECT_TRUE(queue.empty());
}

TEST(PeerFrame, DamageIsNoticed) {
  std::string good;
  append_peer_piece(good, PeerFrameKind::kControl, false, "payload");
  ASSERT_EQ(reason(good), "");
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    PeerFrameDecoder decoder(100);
    std::vector<PeerFrame> frames;
    // A longer length waits for bytes that do not come; everything else is an error at once.
    (void)decoder.feed(bad, frames);
    EXPECT_TRUE(frames.empty()) << "bit " << bit;
  }
}

TEST(PeerFrame, WhatIsTooLargeOrOddIsRefused) {
  std::string bytes;
  append_peer_piece(bytes, PeerFrameKind::kControl, true, std::string(60, 'a'));
  append_peer_piece(bytes, PeerFrameKind::kControl, false, std::string(60, 'a'));
  EXPECT_EQ(reason(bytes), "PEER_FRAME_TOO_LARGE");
  EXPECT_EQ(reason(bytes, 120), "");
  EXPECT_EQ(reason(from_hex("010000007fffffff00000000").value()), "PEER_FRAME_TOO_LARGE");
  EXPECT_EQ(reason(from_hex("020000000000000000000000").value()), "PEER_FRAME_VERSION");
  EXPECT_EQ(reason(from_hex("010300000000000000000000").value()), "PEER_FRAME_INVALID");
  EXPECT_EQ(reason(from_hex("010002000000000000000000").value()), "PEER_FRAME_INVALID");
  EXPECT_EQ(reason("GET / HTTP/1.1\r\n\r\n"), "PEER_FRAME_VERSION");
  std::string empty_piece;
  append_peer_piece(empty_piece, PeerFrameKind::kBulk, true, "");
  EXPECT_EQ(reason(empty_piece), "PEER_FRAME_INVALID");
}

TEST(PeerFrame, RandomBytesNeverMakeAFrame) {
  SeededRandom random(7);
  for (int round = 0; round < 2000; ++round) {
    std::string bytes;
    for (uint64_t i = random.below(200); i > 0; --i) bytes.push_back(static_cast<char>(random.next()));
    if (!bytes.empty()) bytes[0] = 1;
    PeerFrameDecoder decoder(1000);
    std::vector<PeerFrame> frames;
    (void)decoder.feed(bytes, frames);
    EXPECT_TRUE(frames.empty());
  }
}

TEST(PeerFrame, AHelloIsReadBackAndGarbageIsNot) {
  const PeerHello hello{"cluster", NodeId(1), NodeId(2), Incarnation(99)};
  const std::string bytes = encode_peer_hello(hello);
  EXPECT_EQ(decode_peer_hello(bytes).value(), hello);
  for (size_t size = 0; size < bytes.size(); ++size) EXPECT_FALSE(decode_peer_hello(bytes.substr(0, size)));
  EXPECT_FALSE(decode_peer_hello(bytes + "x"));
  std::string later = bytes + "more";
  later[0] = 2;
  EXPECT_EQ(decode_peer_hello(later).value(), hello) << "a later version may say more";
}

}  // namespace
}  // namespace uccp::runtime
