#include "sim/checkers/history_file.h"

#include <gtest/gtest.h>

namespace uccp::sim {
namespace {

using Kind = RegisterOperation::Kind;

TEST(HistoryFile, HasOperationsByRegister) {
  const auto history = parse_history(
      "1 a put 5 - ok 10 20\n"
      "2 b get 0 - ok 11 12\n"
      "1 a cas 6 5 no 30 40\n");
  ASSERT_TRUE(history.has_value());
  ASSERT_EQ(history->size(), 2u);
  const auto& a = history->at("a");
  ASSERT_EQ(a.size(), 2u);
  EXPECT_EQ(a[0].kind, Kind::kPut);
  EXPECT_EQ(a[0].value, 5u);
  EXPECT_EQ(a[0].returned_us, 20);
  EXPECT_EQ(a[1].expected, 5u);
  EXPECT_FALSE(a[1].done);
}

TEST(HistoryFile, KeepsUnknownChangesOpenAndDropsUnknownReads) {
  const auto history = parse_history("1 a put 5 - ? 10 -\n1 a get 0 - ? 10 -\n");
  ASSERT_TRUE(history.has_value());
  ASSERT_EQ(history->at("a").size(), 1u);
  EXPECT_TRUE(history->at("a")[0].unknown());
}

TEST(HistoryFile, RefusesWhatIsNoHistoryAndSaysWhere) {
  for (const char* line : {"1 a put 5 - ok 10", "1 a swap 5 - ok 10 20", "1 a put x - ok 10 20", "1 a put 5 - no 10 20",
                           "1 a put 5 - ok 10 -", "1 a put 5 - ? 10 20", "1 a put 5 - ok 20 10"}) {
    const auto history = parse_history(std::string("1 a put 1 - ok 1 2\n") + line + "\n");
    ASSERT_FALSE(history.has_value()) << line;
    EXPECT_EQ(history.error().reason(), "HISTORY_INVALID");
    EXPECT_NE(history.error().message().find("line 2"), std::string::npos) << history.error().message();
  }
}

}  // namespace
}  // namespace uccp::sim
