#include "cli/json_path.h"

#include <gtest/gtest.h>

namespace uccp::cli {
namespace {

constexpr std::string_view kDocument =
    R"({"id":"a","n":3,"labels":{"x.y":"dotted","k":"v"},"list":[{"s":"UP","p":1},{"s":"DOWN","p":2},{"s":"UP"}]})";

std::string applied(std::string_view path) {
  const Result<JsonPath> parsed = JsonPath::parse(path);
  EXPECT_TRUE(parsed) << path << ": " << parsed.error().message();
  return parsed ? parsed->apply(kDocument) : "";
}

TEST(JsonPath, FollowsNamesIndexesAndStars) {
  EXPECT_EQ(applied("{.id}"), "a");
  EXPECT_EQ(applied("id"), "a");
  EXPECT_EQ(applied(".n"), "3");
  EXPECT_EQ(applied("{$.labels.k}"), "v");
  EXPECT_EQ(applied("{.labels['x.y']}"), "dotted");
  EXPECT_EQ(applied("{.list[0].s}"), "UP");
  EXPECT_EQ(applied("{.list[-1].s}"), "UP");
  EXPECT_EQ(applied("{.list[*].s}"), "UP DOWN UP");
  EXPECT_EQ(applied("{.labels.*}"), "dotted v");
}

TEST(JsonPath, WhatIsNotThereGivesNothing) {
  EXPECT_EQ(applied("{.list[7].s}"), "");
  EXPECT_EQ(applied("{.list[-4].s}"), "");
  EXPECT_EQ(applied("{.id.more}"), "");
  EXPECT_EQ(applied("{.n[0]}"), "");
}

TEST(JsonPath, FiltersCompareWithTextsAndValues) {
  EXPECT_EQ(applied("{.list[?(@.s=='DOWN')].p}"), "2");
  EXPECT_EQ(applied("{.list[?(@.p==1)].s}"), "UP");
  EXPECT_EQ(applied("{.list[?(@.p != 1)].s}"), "DOWN UP");
}

TEST(JsonPath, TextStandsBetweenExpressions) {
  EXPECT_EQ(applied(R"(id={.id}{"\t"}n={.n}{"\n"})"), "id=a\tn=3\n");
  EXPECT_EQ(applied("{.}"), std::string(kDocument));
}

TEST(JsonPath, MistakesNameTheirPlace) {
  for (const std::string_view wrong :
       {"{.id", "{.list[}", "{.list[x]}", "{.list[?(s==1)]}", "{.list[?(@.s=1)]}", "{'a}", "{.a..b}", "{.list[0}"}) {
    const Result<JsonPath> parsed = JsonPath::parse(wrong);
    ASSERT_FALSE(parsed) << wrong;
    EXPECT_EQ(parsed.error().reason(), "USAGE");
    EXPECT_TRUE(parsed.error().message().contains("at character")) << parsed.error().message();
  }
}

}  // namespace
}  // namespace uccp::cli
