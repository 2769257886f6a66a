#include <gtest/gtest.h>

#include <set>

#include "base/bytes.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/random.h"
#include "base/status.h"

namespace uccp {
namespace {

TEST(Status, EveryCodeHasARowWithATotalMapping) {
  std::set<std::string_view> names;
  for (int i = 0; i < kCodeCount; ++i) {
    const CodeInfo& info = code_info(static_cast<Code>(i));
    EXPECT_TRUE(names.insert(info.name).second) << info.name;
    EXPECT_TRUE(info.http >= 200 && info.http < 600);
    EXPECT_EQ(info.exit == 0, i == 0);
    EXPECT_NE(code_info(code_from_grpc(info.grpc)).name, "") << info.name;
  }
  EXPECT_EQ(code_from_grpc(99), Code::kInternal);
}

TEST(Status, DetailsSurviveAssignmentToItself) {
  Status status(Code::kInvalid, "R", "m");
  status = std::move(status).with_field("f", "wrong").with_retry_after_ms(5);
  EXPECT_EQ(status.reason(), "R");
  EXPECT_EQ(status.detail().fields.size(), 1u);
  const Status copy = status;
  status = std::move(status).with_field("g", "wrong");
  EXPECT_EQ(copy.detail().fields.size(), 1u);
}

Result<int> half(int n) {
  if (n % 2 != 0) return fail(Code::kInvalid, "ODD", "odd");
  return n / 2;
}
Result<std::string> quarter(int n) {
  UCCP_TRY(const int h, half(n));
  UCCP_TRY(const int q, half(h));
  return std::to_string(q);
}

TEST(Result, TryHandsOnTheFirstError) {
  EXPECT_EQ(*quarter(8), "2");
  EXPECT_EQ(quarter(6).error().reason(), "ODD");
}

TEST(Bytes, WhatIsWrittenIsReadBack) {
  ByteWriter out;
  out.u8(7)
      .u32(1u << 31)
      .u64(1ull << 63)
      .varint(UINT64_MAX)
      .varint(0)
      .bytes("ab")
      .key_part(std::string_view("a\0b", 3));
  ByteReader in(out.data());
  EXPECT_EQ(in.u8(), 7);
  EXPECT_EQ(in.u32(), 1u << 31);
  EXPECT_EQ(in.u64(), 1ull << 63);
  EXPECT_EQ(in.varint(), UINT64_MAX);
  EXPECT_EQ(in.varint(), 0u);
  EXPECT_EQ(in.bytes(), "ab");
  EXPECT_EQ(in.key_part(), std::string("a\0b", 3));
  EXPECT_TRUE(in.at_end());
}

TEST(Bytes, CutInputFailsAndStaysFailed) {
  const std::string whole = ByteWriter().bytes("hello").u64(1).take();
  for (size_t size = 0; size < whole.size(); ++size) {
    ByteReader in(std::string_view(whole).substr(0, size));
    in.bytes();
    in.u64();
    EXPECT_FALSE(in.ok()) << size;
    EXPECT_EQ(in.u8(), 0);
  }
}

TEST(Bytes, KeyPartsSortLikeTheirStringsAndNoneIsAPrefix) {
  const std::vector<std::string> parts = {
      "", std::string("\0", 1), std::string("\0\0", 2), "a", std::string("a\0", 2), "ab", "b"};
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    const std::string a = ByteWriter().key_part(parts[i]).take();
    const std::string b = ByteWriter().key_part(parts[i + 1]).take();
    EXPECT_LT(a, b);
    EXPECT_FALSE(b.starts_with(a));
  }
}

TEST(Bytes, Crc32cMatchesTheStandardVector) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c("6789", crc32c("12345")), 0xe3069283u);
}

TEST(Bytes, HexAndBase64RoundTripAndRefuseJunk) {
  for (const std::string text : {"", "a", "ab", "abc", "\xff\x00\x10"}) {
    EXPECT_EQ(*from_hex(to_hex(text)), text);
    EXPECT_EQ(*from_base64(to_base64(text)), text);
    EXPECT_EQ(*from_base64(to_base64url(text)), text);
  }
  EXPECT_FALSE(from_hex("abc"));
  EXPECT_FALSE(from_hex("zz"));
  EXPECT_FALSE(from_base64("a"));
  EXPECT_FALSE(from_base64("a*bc"));
}

TEST(Bytes, Utf8IsCheckedStrictly) {
  EXPECT_TRUE(is_utf8("gr\xc3\xbc\xc3\x9f\xe2\x82\xac\xf0\x9f\x98\x80"));
  for (const char* bad : {"\xc0\x80", "\xed\xa0\x80", "\xf5\x80\x80\x80", "\xe2\x82", "\x80"})
    EXPECT_FALSE(is_utf8(bad));
}

TEST(Json, StringsAreEscapedAndBrokenUtf8Replaced) {
  JsonWriter json;
  json.begin_object()
      .key("a\"b")
      .value("x\n\x01\xff")
      .key("n")
      .begin_array()
      .value(1)
      .value(2.5)
      .value(true)
      .null()
      .end_array();
  json.end_object();
  EXPECT_EQ(json.data(), "{\"a\\\"b\":\"x\\n\\u0001\xef\xbf\xbd\",\"n\":[1,2.5,true,null]}");
}

TEST(Digest, OrderDoesNotMatterAndRemovalUndoesAddition) {
  Digest a, b;
  a.add("k1", "v1");
  a.add("k2", "v2");
  b.add("k2", "v2");
  b.add("k1", "v1");
  EXPECT_EQ(a, b);
  b.remove("k2", "v2");
  EXPECT_NE(a, b);
  b.remove("k1", "v1");
  EXPECT_EQ(b, Digest());
  Digest moved;
  moved.add("k", "1v1");
  EXPECT_NE(moved, [] {
    Digest d;
    d.add("k1", "v1");
    return d;
  }());
}

TEST(Metrics, TextHasEveryFamilyAndLabelSetsAreBounded) {
  MetricsRegistry metrics;
  metrics.counter("c_total", "counts", {{"x", "a\"b"}}).add(2);
  metrics.gauge("g", "gauges").set(1.5);
  metrics.histogram("h_seconds", "times", {}, {0.1, 1}).observe(0.5);
  metrics.callback("f", "reads", [] { return 7.0; });
  const std::string text = metrics.text();
  for (const char* line :
       {"c_total{x=\"a\\\"b\"} 2", "g 1.5", "h_seconds_bucket{le=\"0.1\"} 0", "h_seconds_bucket{le=\"1\"} 1",
        "h_seconds_bucket{le=\"+Inf\"} 1", "h_seconds_count 1", "f 7", "# TYPE c_total counter"}) {
    EXPECT_NE(text.find(line), std::string::npos) << line;
  }
  for (size_t i = 0; i < 2 * MetricsRegistry::kLabelSetsMax; ++i)
    metrics.counter("m", "", {{"i", std::to_string(i)}}).add();
  EXPECT_GE(metrics.value("m", {{"overflow", "true"}}), MetricsRegistry::kLabelSetsMax - 1);
}

TEST(Metrics, ACallbackMayUseTheRegistry) {
  MetricsRegistry metrics;
  metrics.callback("f", "reads", [&] {
    metrics.counter("reads_total", "reads").add();
    return 7.0;
  });
  for (int i = 1; i <= 3; ++i) EXPECT_NE(metrics.text().find("f 7\n"), std::string::npos) << i;
  EXPECT_EQ(metrics.value("f"), 7.0);
  EXPECT_EQ(metrics.value("reads_total"), 4.0);
}

TEST(Log, RecordsAreOneLineOfTheSpecifiedFields) {
  log::configure({.format = log::Format::kJson, .service = "uccp", .node_id = "n1"});
  const log::Record record{log::Level::kInfo, "two\nlines", {{"n", 3}, {"s", "x"}}};
  const std::string json = log::format_record(record, std::source_location::current(), 1'700'000'000'123'456);
  EXPECT_TRUE(
      json.starts_with(R"({"timestamp":"2023-11-14T22:13:20.123456Z","level":"INFO","service":"uccp","node_id":"n1")"));
  EXPECT_NE(json.find(R"("fields":{"n":3,"s":"x"})"), std::string::npos);
  EXPECT_NE(json.find("caller"), std::string::npos);
  log::configure({.format = log::Format::kText});
  EXPECT_EQ(log::format_record(record, std::source_location::current(), 0).find('\n'), std::string::npos);
}

TEST(SeededRandom, TheSameSeedGivesTheSameNumbers) {
  SeededRandom a(1), b(1), c(2);
  EXPECT_EQ(a.next(), b.next());
  EXPECT_NE(a.next(), c.next());
}

}  // namespace
}  // namespace uccp
