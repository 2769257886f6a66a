// The checker of transactions over topics finds what it is there for, and nothing in what is right.
#include "sim/checkers/transaction_checker.h"

#include <gtest/gtest.h>

namespace uccp::sim {
namespace {

const EventChecker::Place kIn{"in", 0};

class TransactionCheckerTest : public testing::Test {
 protected:
  // One that has published `text` to both topics because of the event at the offset.
  size_t published(const std::string& text, uint64_t offset) {
    const size_t number = checker_.begun("t" + text);
    for (const char* topic : {"left", "right"}) {
      checker_.publishes(number, topic, text, kIn, offset);
      checker_.stored(number, topic);
    }
    return number;
  }
  void commit(size_t number) {
    checker_.commits(number);
    checker_.ended(number, true);
  }
  void show(const std::string& text) {
    checker_.shown("left", text);
    checker_.shown("right", text);
  }
  bool clean() {
    checker_.check();
    return violations_.empty();
  }

  Violations violations_;
  TransactionChecker checker_{violations_};
};

TEST_F(TransactionCheckerTest, WhatIsCommittedIsShownWholeAndWhatIsAbortedIsNot) {
  commit(published("1", 0));
  show("1");
  const size_t aborted = published("2", 1);
  checker_.ended(aborted, false);
  commit(published("3", 1));
  show("3");
  published("4", 2);
  EXPECT_TRUE(checker_.processed(kIn, 1));
  EXPECT_FALSE(checker_.processed(kIn, 2));
  EXPECT_TRUE(clean());
}

TEST_F(TransactionCheckerTest, APartOfOneIsFound) {
  commit(published("1", 0));
  checker_.shown("left", "1");
  EXPECT_FALSE(clean());
}

TEST_F(TransactionCheckerTest, NothingOfACommittedOneIsFound) {
  commit(published("1", 0));
  EXPECT_FALSE(clean());
}

TEST_F(TransactionCheckerTest, WhatNobodyHasCommittedMustNotBeShown) {
  published("1", 0);
  checker_.shown("left", "1");
  EXPECT_FALSE(violations_.empty());
}

TEST_F(TransactionCheckerTest, WhatIsAbortedMustNotBeShownBeforeOrAfter) {
  const size_t number = published("1", 0);
  checker_.ended(number, false);
  checker_.shown("right", "1");
  EXPECT_FALSE(violations_.empty());
}

TEST_F(TransactionCheckerTest, AnEventThatWasProcessedTwiceIsFound) {
  commit(published("1", 0));
  commit(published("2", 0));
  show("1");
  show("2");
  EXPECT_FALSE(clean());
}

}  // namespace
}  // namespace uccp::sim
