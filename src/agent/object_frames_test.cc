// Frames between agents: their bytes, and what is wrong with them.
#include "agent/object_frames.h"

#include <gtest/gtest.h>

#include "base/bytes.h"

namespace uccp::agent {
namespace {

TEST(ObjectFrames, BytesOfAFrame) {
  EXPECT_EQ(to_hex(encode_frame('G', "ab")), "00000003476162");
  const auto head = parse_frame_head(encode_frame('G', "ab").substr(0, kFrameHeadBytes));
  ASSERT_TRUE(head.has_value());
  EXPECT_EQ(head->kind, 'G');
  EXPECT_EQ(head->body_bytes, 2u);
}

TEST(ObjectFrames, WhatIsNoFrameIsRefused) {
  for (const char* hex : {"", "00000001", "0000000047", "ffffffff47", "0010100247"})
    EXPECT_EQ(parse_frame_head(*from_hex(hex)).error().reason(), "FRAME_INVALID") << hex;
  EXPECT_TRUE(parse_frame_head(*from_hex("0010100147")).has_value()) << "the largest";
}

TEST(ObjectFrames, ALocationComesBackAsItWas) {
  const ObjectLocation location{.address = "[::1]:80", .authority = "pem", .grant = "secret", .zone = ""};
  EXPECT_EQ(parse_location(encode(location)).value(), location);
  EXPECT_EQ(parse_location("").error().reason(), "LOCATION_INVALID");
  EXPECT_EQ(parse_location(encode({.address = "a:1", .authority = "pem"})).error().reason(), "LOCATION_INVALID");
  EXPECT_EQ(parse_location(encode({.address = "a:1", .authority = std::string(kLocationBytesMax, 'p'), .grant = "x"}))
                .error()
                .reason(),
            "LOCATION_INVALID");
}

TEST(ObjectFrames, EveryChangedBitOfAChunkIsFound) {
  const std::string chunk = encode_chunk(7, "content");
  std::string out(7, ' ');
  ASSERT_EQ(take_chunk(chunk, 7, out).value(), 7u);
  EXPECT_EQ(out, "content");
  EXPECT_EQ(take_chunk(chunk, 8, out).error().reason(), "CHUNK_DAMAGED");
  EXPECT_EQ(take_chunk(chunk, 7, std::span(out).first(6)).error().reason(), "CHUNK_DAMAGED");
  for (size_t bit = 0; bit < chunk.size() * 8; ++bit) {
    std::string changed = chunk;
    changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ (1 << bit % 8));
    EXPECT_EQ(take_chunk(changed, 7, out).error().reason(), "CHUNK_DAMAGED") << bit;
  }
}

TEST(ObjectFrames, FieldsOfABodyAsFarAsTheyAreWhole) {
  const std::string body = from_hex("6900000002616264000000006900000005").value();
  const auto found = fields_of(body);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0], (std::pair<char, std::string_view>('i', "ab")));
  EXPECT_EQ(found[1], (std::pair<char, std::string_view>('d', "")));
}

TEST(ObjectFrames, AnErrorComesBackAsItWas) {
  const Status status = error_of(error_body(Status(Code::kNotFound, "OBJECT_UNKNOWN", "it is gone")));
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_EQ(status.reason(), "OBJECT_UNKNOWN");
  EXPECT_EQ(status.message(), "it is gone");
  EXPECT_EQ(error_of("").reason(), "PEER_REFUSED");
}

}  // namespace
}  // namespace uccp::agent
