// What is said to Redis and S3, and what they answer.
#include "shm/tier.h"

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "shm/redis_reply.h"
#include "shm/s3_signature.h"

namespace uccp::shm {
namespace {

using Kind = RedisReply::Kind;

TEST(RedisReply, EachKind) {
  std::string_view in = "+OK\r\n-ERR no\r\n:-7\r\n$3\r\na\r\n\r\n$-1\r\n*2\r\n$1\r\n0\r\n*1\r\n+x\r\n";
  std::vector<RedisReply> found;
  while (!in.empty()) found.push_back(take_redis_reply(in).value().value());
  ASSERT_EQ(found.size(), 6u);
  EXPECT_EQ(found[0].text, "OK");
  EXPECT_EQ(found[1].kind, Kind::kError);
  EXPECT_EQ(found[2].integer, -7);
  EXPECT_EQ(found[3].text, "a\r\n");
  EXPECT_EQ(found[4].kind, Kind::kNone);
  EXPECT_EQ(found[5].list.at(1).list.at(0).text, "x");
}

TEST(RedisReply, WhatHasNotComeWholeIsLeft) {
  const std::string whole = "*2\r\n$5\r\nhello\r\n:12\r\n";
  for (size_t size = 0; size < whole.size(); ++size) {
    std::string_view in = std::string_view(whole).substr(0, size);
    const auto reply = take_redis_reply(in);
    ASSERT_TRUE(reply.has_value()) << size;
    EXPECT_FALSE(reply->has_value()) << size;
    EXPECT_EQ(in.size(), size);
  }
}

TEST(RedisReply, NonsenseIsRefused) {
  const std::string deep = "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n";
  for (const std::string& one :
       {std::string("HTTP/1.1 400\r\n"), std::string(":x\r\n"), std::string("$-2\r\n"), std::string("$99999999999\r\n"),
        std::string("$1\r\nabc"), std::string("*200000\r\n"), deep, "+" + std::string(70'000, 'x')}) {
    std::string_view in = one;
    EXPECT_EQ(take_redis_reply(in).error().reason(), "REDIS_REPLY_INVALID") << one.substr(0, 30);
  }
}

TEST(RedisReply, BytesOfACommand) {
  EXPECT_EQ(redis_command({"SET", "k", std::string_view("\r\n", 2)}), "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\n\r\n\r\n");
}

// The first of the examples that AWS publishes for its signature (get-vanilla).
TEST(S3Signature, OfAPublishedExample) {
  const S3Request request{.method = "GET",
                          .host = "example.amazonaws.com",
                          .path = "/",
                          .query = {},
                          .body_sha256 = to_hex(sha256("")),
                          .headers = {}};
  const auto headers = signed_headers(request,
                                      {.access = "AKIDEXAMPLE",
                                       .secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
                                       .region = "us-east-1",
                                       .service = "service"},
                                      WallTime{int64_t{1'440'938'160} * 1'000'000});
  ASSERT_EQ(headers.size(), 2u);
  EXPECT_EQ(headers[0], std::pair(std::string("x-amz-date"), std::string("20150830T123600Z")));
  EXPECT_EQ(headers[1].second,
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
            "SignedHeaders=host;x-amz-date, "
            "Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
}

TEST(S3Signature, EncodesWhatIsNotPlain) {
  EXPECT_EQ(url_encoded("a/b c+~", true), "a/b%20c%2B~");
  EXPECT_EQ(url_encoded("a/b", false), "a%2Fb");
  EXPECT_EQ(query_of({.query = {{"prefix", "x/y"}, {"list-type", "2"}}}), "list-type=2&prefix=x%2Fy");
}

TEST(S3Answers, ListsAndErrors) {
  const std::string list =
      "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"x\"><Name>b</Name><Contents><Key>a&amp;b</Key><Size>1</Size>"
      "</Contents><Contents><Key>c</Key></Contents></ListBucketResult>";
  EXPECT_EQ(listed_keys(list).value(), (std::vector<std::string>{"a&b", "c"}));
  EXPECT_TRUE(listed_keys("<ListBucketResult></ListBucketResult>")->empty());
  for (const char* one : {"", "<html>", "<ListBucketResult><Contents><Key></Key></Contents></ListBucketResult>",
                          "<ListBucketResult><Contents></Contents></ListBucketResult>"})
    EXPECT_EQ(listed_keys(one).error().reason(), "S3_ANSWER_INVALID") << one;
  const S3Error error = error_in("<Error><Code>NoSuchBucket</Code><Message>It isn&apos;t there</Message></Error>");
  EXPECT_EQ(error.code, "NoSuchBucket");
  EXPECT_EQ(error.message, "It isn't there");
  EXPECT_EQ(error_in("bad gateway").code, "");
}

TEST(Tiers, AddressesThatAreNone) {
  const auto reason = [](const std::string& url, const std::string& secret = "secret") {
    const auto tier = open_tier({.url = url, .user = "user", .secret = secret});
    return tier ? "" : std::string(tier.error().reason());
  };
  for (const char* good : {"redis://localhost:6379", "redis://localhost:6379/3", "redis://me@localhost:6379",
                           "s3://bucket", "s3://bucket/some/prefix?endpoint=http://127.0.0.1:9000&region=eu-west-1"})
    EXPECT_EQ(reason(good), "") << good;
  for (const char* bad : {"", "localhost:6379", "http://localhost", "redis://localhost", "redis://me:pass@localhost:1",
                          "redis://localhost:1/x", "rediss://localhost:1", "s3://", "s3://b?endpoint=ftp://x",
                          "s3://b?what=x", "s3://b/pre fix", "s3://b?region="})
    EXPECT_EQ(reason(bad), "TIER_INVALID") << bad;
  EXPECT_EQ(reason("s3://bucket", ""), "TIER_INVALID") << "without keys";
}

TEST(Tiers, AServerThatIsGoneIsNamed) {
  const auto redis = open_tier({.url = "redis://127.0.0.1:1"}).value();
  const Status status = redis->put("key", "content");
  EXPECT_EQ(status.reason(), "TIER_UNAVAILABLE");
  EXPECT_NE(status.message().find("redis://127.0.0.1:1"), std::string::npos) << status.message();
  const auto s3 = open_tier({.url = "s3://b?endpoint=http://127.0.0.1:1", .user = "u", .secret = "s"}).value();
  EXPECT_EQ(s3->get("key").error().reason(), "TIER_UNAVAILABLE");
}

}  // namespace
}  // namespace uccp::shm
