#include "doors/grpc/grpc_wire.h"

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "call/error_json.h"
#include "doors/net/encoding.h"

namespace uccp::doors {
namespace {

std::string framed(const std::string& message, char compressed = 0) {
  std::string out(kMessageHeadBytes, '\0');
  put_message_head(reinterpret_cast<uint8_t*>(out.data()), message.size());
  out[0] = compressed;
  return out + message;
}

struct Reader {
  MessageReader reader{1000};
  std::vector<std::string> got;
  Status feed(std::string_view bytes) {
    return reader.feed(bytes, [this](std::string message) {
      got.push_back(std::move(message));
      return true;
    });
  }
};

TEST(MessageReaderTest, MessagesComeWholeHoweverTheBytesAreCut) {
  const std::vector<std::string> wanted = {"one", "", std::string(900, 'x'), "four"};
  std::string bytes;
  for (const auto& message : wanted) bytes += framed(message);
  for (size_t step = 1; step <= bytes.size(); ++step) {
    Reader reader;
    for (size_t at = 0; at < bytes.size(); at += step) {
      ASSERT_TRUE(reader.feed(std::string_view(bytes).substr(at, step)).is_ok());
    }
    ASSERT_EQ(reader.got, wanted) << "in pieces of " << step;
    EXPECT_EQ(reader.reader.held_bytes(), 0u);
  }
}

TEST(MessageReaderTest, AMessageThatIsTooLongIsRefusedAtItsHead) {
  Reader reader;
  EXPECT_EQ(reader.feed(framed(std::string(1001, 'x')).substr(0, kMessageHeadBytes)).reason(), "REQUEST_TOO_LARGE");
  EXPECT_TRUE(reader.got.empty());
}

TEST(MessageReaderTest, CompressedMessagesNeedAnEncodingAndAreBounded) {
  const std::string small = framed(gzip("hello"), 1);
  Reader unknown;
  EXPECT_EQ(unknown.feed(small).reason(), "ENCODING_INVALID");
  Reader known;
  known.reader.set_encoding(MessageEncoding::kGzip);
  EXPECT_TRUE(known.feed(small + framed("plain")).is_ok());
  EXPECT_EQ(known.got, (std::vector<std::string>{"hello", "plain"}));
  EXPECT_EQ(known.feed(framed(gzip(std::string(5000, 'x')), 1)).reason(), "REQUEST_TOO_LARGE");
  Reader broken;
  broken.reader.set_encoding(MessageEncoding::kGzip);
  EXPECT_EQ(broken.feed(framed("no gzip", 1)).reason(), "ENCODING_INVALID");
}

TEST(MessageReaderTest, AnUnknownFlagIsMalformed) {
  Reader reader;
  EXPECT_EQ(reader.feed(framed("x", 2)).reason(), "MESSAGE_MALFORMED");
}

TEST(GrpcWireTest, Timeouts) {
  EXPECT_EQ(parse_timeout_us("1H"), 3'600'000'000);
  EXPECT_EQ(parse_timeout_us("2M"), 120'000'000);
  EXPECT_EQ(parse_timeout_us("99999999S"), 99'999'999'000'000);
  EXPECT_EQ(parse_timeout_us("100m"), 100'000);
  EXPECT_EQ(parse_timeout_us("7u"), 7);
  EXPECT_EQ(parse_timeout_us("10n"), 1);
  for (const char* bad : {"", "m", "1", "-1S", "1.5S", "1x", "123456789S", " 1S"}) {
    EXPECT_FALSE(parse_timeout_us(bad)) << bad;
  }
}

TEST(GrpcWireTest, AStatusTravelsInTrailersThatClientsTake) {
  GrpcHeaders ok;
  add_status(ok, Status::ok());
  EXPECT_EQ(ok, (GrpcHeaders{{"grpc-status", "0"}}));

  Status status(Code::kInvalid, "FIELD_INVALID", "100 % wrong\n\xc3\xbc");
  for (int i = 0; i < 200; ++i) status = std::move(status).with_field("f" + std::to_string(i), std::string(150, 'd'));
  GrpcHeaders headers;
  add_status(headers, status);
  ASSERT_EQ(headers.size(), 3u);
  EXPECT_EQ(headers[0].second, "3");
  EXPECT_EQ(headers[1].second, "100 %25 wrong%0A%C3%BC");
  EXPECT_LT(headers[2].second.size(), 8000u);
  std::string padded = headers[2].second;
  while (padded.size() % 4 != 0) padded.push_back('=');
  const auto details = from_base64(padded);
  ASSERT_TRUE(details);
  const Status back = call::from_rpc_status(*details, 3, "");
  EXPECT_EQ(back.reason(), "FIELD_INVALID");
  EXPECT_GT(back.detail().fields.size(), 10u);
}

}  // namespace
}  // namespace uccp::doors
