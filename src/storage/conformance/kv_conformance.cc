#include "storage/conformance/kv_conformance.h"

#include <algorithm>
#include <map>
#include <thread>
#include <vector>

#include "base/random.h"

namespace uccp::storage {

KvHarnessFactory under_test(KvHarnessFactory factory) { return factory; }

void KvConformance::SetUp() { harness_ = GetParam()(); }

void KvConformance::put(const std::string& key, const std::string& value) {
  KvBatch batch;
  batch.put(key, value);
  ASSERT_TRUE(kv().write(batch).is_ok());
}

void KvConformance::erase(const std::string& key) {
  KvBatch batch;
  batch.erase(key);
  ASSERT_TRUE(kv().write(batch).is_ok());
}

std::string KvConformance::dump(const KvView& view) {
  std::string text;
  auto it = view.iterate();
  for (it->seek(""); it->valid(); it->next()) text.append(it->key()).append("=").append(it->value()).append(" ");
  EXPECT_TRUE(it->status().is_ok());
  return text;
}

TEST_P(KvConformance, AnEmptyMapHasNothing) {
  EXPECT_EQ(dump(), "");
  EXPECT_EQ(*kv().view()->get("a"), std::nullopt);
}

TEST_P(KvConformance, LaterChangesOfOneKeyInABatchWin) {
  KvBatch batch;
  batch.put("a", "1");
  batch.put("a", "2");
  batch.put("b", "1");
  batch.erase("b");
  batch.erase("c");
  batch.put("c", "3");
  ASSERT_TRUE(kv().write(batch).is_ok());
  EXPECT_EQ(dump(), "a=2 c=3 ");
}

TEST_P(KvConformance, KeysComeInByteOrderWithZerosAndHighBytes) {
  const std::string zero("a\0b", 3);
  const std::vector<std::string> keys = {"", std::string(1, '\0'), "a", zero, "ab", "\x7f", "\x80", "\xff", "\xff\xff"};
  for (const std::string& key : keys) put(key, "");
  auto view = kv().view();
  auto it = view->iterate();
  it->seek("");
  for (const std::string& key : keys) {
    ASSERT_TRUE(it->valid());
    EXPECT_EQ(it->key(), key);
    it->next();
  }
  EXPECT_FALSE(it->valid());
}

TEST_P(KvConformance, AViewDoesNotSeeLaterChanges) {
  put("a", "1");
  put("b", "1");
  auto before = kv().view();
  put("a", "2");
  erase("b");
  put("c", "2");
  auto after = kv().view();
  ASSERT_TRUE(kv().erase_range("a", "z").is_ok());
  EXPECT_EQ(dump(*before), "a=1 b=1 ");
  EXPECT_EQ(dump(*after), "a=2 c=2 ");
  EXPECT_EQ(**before->get("a"), "1");
  EXPECT_EQ(dump(), "");
}

TEST_P(KvConformance, AnIteratorDoesNotSeeLaterChanges) {
  put("a", "1");
  put("c", "1");
  auto view = kv().view();
  auto it = view->iterate();
  it->seek("a");
  put("b", "2");
  erase("c");
  it->next();
  ASSERT_TRUE(it->valid());
  EXPECT_EQ(it->key(), "c");
}

TEST_P(KvConformance, SeekFindsTheFirstKeyAtOrAfter) {
  put("b", "");
  put("d", "");
  auto view = kv().view();
  auto it = view->iterate();
  EXPECT_FALSE(it->valid());
  it->seek("b");
  EXPECT_EQ(it->key(), "b");
  it->seek("c");
  EXPECT_EQ(it->key(), "d");
  it->seek("e");
  EXPECT_FALSE(it->valid());
  it->seek("a");
  EXPECT_EQ(it->key(), "b");
}

TEST_P(KvConformance, SeekBeforeFindsTheLastKeyBelow) {
  put("b", "");
  put("d", "");
  auto view = kv().view();
  auto it = view->iterate();
  it->seek_before("e");
  EXPECT_EQ(it->key(), "d");
  it->seek_before("d");
  EXPECT_EQ(it->key(), "b");
  it->seek_before("b");
  EXPECT_FALSE(it->valid());
  it->seek_before("c");
  EXPECT_EQ(it->key(), "b");
}

TEST_P(KvConformance, IteratorsWalkBothWays) {
  for (const char* key : {"a", "b", "c", "d"}) put(key, "");
  auto view = kv().view();
  auto it = view->iterate();
  std::string walked;
  it->seek("b");
  for (const char step : std::string("nnppp")) {
    walked.append(it->key());
    step == 'n' ? it->next() : it->previous();
  }
  EXPECT_EQ(walked, "bcdcb");
  EXPECT_EQ(it->key(), "a");
  it->previous();
  EXPECT_FALSE(it->valid());
}

TEST_P(KvConformance, EraseRangeTakesTheFirstAndLeavesTheEnd) {
  for (const char* key : {"a", "b", "c", "d"}) put(key, "1");
  ASSERT_TRUE(kv().erase_range("b", "d").is_ok());
  EXPECT_EQ(dump(), "a=1 d=1 ");
  ASSERT_TRUE(kv().erase_range("d", "a").is_ok());
  ASSERT_TRUE(kv().erase_range("d", "d").is_ok());
  EXPECT_EQ(dump(), "a=1 d=1 ");
  put("c", "2");
  EXPECT_EQ(dump(), "a=1 c=2 d=1 ");
}

TEST_P(KvConformance, WhatWasFlushedSurvivesACrash) {
  put("a", "1");
  put("b", "1");
  ASSERT_TRUE(kv().flush().is_ok());
  harness_->crash();
  EXPECT_EQ(dump(), "a=1 b=1 ");
}

TEST_P(KvConformance, AfterACrashTheMapIsThatOfSomeWriteSinceTheLastFlush) {
  std::vector<std::string> states;
  put("a", "0");
  ASSERT_TRUE(kv().flush().is_ok());
  states.push_back(dump());
  for (int i = 1; i < 5; ++i) {
    KvBatch batch;
    batch.put("a", std::to_string(i));
    batch.put("b", std::to_string(i));
    ASSERT_TRUE(kv().write(batch).is_ok());
    states.push_back(dump());
  }
  ASSERT_TRUE(kv().erase_range("a", "b").is_ok());
  states.push_back(dump());
  harness_->crash();
  EXPECT_NE(std::ranges::find(states, dump()), states.end()) << dump();
}

TEST_P(KvConformance, ACheckpointHasWhatWasWrittenBeforeAndNothingAfter) {
  put("a", "1");
  ASSERT_TRUE(kv().flush().is_ok());
  put("b", "not flushed");
  const std::string directory = harness_->new_directory();
  ASSERT_TRUE(kv().checkpoint(directory).is_ok());
  put("c", "after");
  {
    auto copy = harness_->open_checkpoint(directory);
    ASSERT_TRUE(copy) << copy.error().to_string();
    EXPECT_EQ(dump(*(*copy)->view()), "a=1 b=not flushed ");
    KvBatch batch;
    batch.erase("a");
    ASSERT_TRUE((*copy)->write(batch).is_ok());
  }
  EXPECT_EQ(dump(), "a=1 b=not flushed c=after ");
}

TEST_P(KvConformance, ACheckpointNeverOverwrites) {
  const std::string directory = harness_->new_directory();
  put("a", "1");
  ASSERT_TRUE(kv().checkpoint(directory).is_ok());
  EXPECT_EQ(kv().checkpoint(directory).code(), Code::kAlreadyExists);
}

TEST_P(KvConformance, SizeGrowsWithContent) {
  const uint64_t before = kv().size_bytes();
  for (int i = 0; i < 100; ++i) put("key" + std::to_string(i), std::string(10'000, static_cast<char>(i)));
  EXPECT_GT(kv().size_bytes(), before + 100'000);
}

TEST_P(KvConformance, RandomChangesLeaveTheSameAsAModel) {
  SeededRandom random(42);
  std::map<std::string, std::string> model;
  std::map<std::string, std::string> flushed;
  const auto random_key = [&] {
    const char first = static_cast<char>('a' + random.below(4));
    return first + std::to_string(random.below(30));
  };
  const auto model_dump = [](const std::map<std::string, std::string>& content) {
    std::string text;
    for (const auto& [key, value] : content) text.append(key).append("=").append(value).append(" ");
    return text;
  };
  std::vector<std::pair<std::shared_ptr<const KvView>, std::string>> views;
  for (int round = 0; round < 600; ++round) {
    KvBatch batch;
    for (uint64_t i = random.below(8); i > 0; --i) {
      const std::string key = random_key();
      if (random.chance(0.6)) {
        batch.put(key, std::to_string(round));
        model[key] = std::to_string(round);
      } else {
        batch.erase(key);
        model.erase(key);
      }
    }
    ASSERT_TRUE(kv().write(batch).is_ok());
    if (random.chance(0.05)) {
      const std::string from = random_key();
      const std::string to = random_key();
      ASSERT_TRUE(kv().erase_range(from, to).is_ok());
      if (from < to) model.erase(model.lower_bound(from), model.lower_bound(to));
    }
    if (random.chance(0.1)) views.emplace_back(kv().view(), model_dump(model));
    if (random.chance(0.05)) ASSERT_TRUE(kv().flush().is_ok());
    auto view = kv().view();
    auto it = view->iterate();
    const std::string probe = random_key();
    it->seek_before(probe);
    const auto at = model.lower_bound(probe);
    ASSERT_EQ(it->valid(), at != model.begin());
    if (it->valid()) ASSERT_EQ(it->key(), std::prev(at)->first);
    it->seek(probe);
    ASSERT_EQ(it->valid(), at != model.end());
    if (it->valid()) ASSERT_EQ(it->key(), at->first);
  }
  EXPECT_EQ(dump(), model_dump(model));
  for (const auto& [view, content] : views) EXPECT_EQ(dump(*view), content);
  views.clear();
  ASSERT_TRUE(kv().flush().is_ok());
  harness_->crash();
  EXPECT_EQ(dump(), model_dump(model));
}

TEST_P(KvConformance, ViewsAreReadOnOtherThreadsWhileTheMapChanges) {
  for (int i = 0; i < 200; ++i) put("key" + std::to_string(i), "0");
  std::vector<std::thread> readers;
  for (int i = 0; i < 100; ++i) {
    KvBatch batch;
    for (int key = 0; key < 200; key += 7) batch.put("key" + std::to_string(key), std::to_string(i));
    ASSERT_TRUE(kv().write(batch).is_ok());
    if (i % 25 != 0) continue;
    readers.emplace_back([view = kv().view(), expected = std::to_string(i)] {
      for (int round = 0; round < 20; ++round) {
        auto it = view->iterate();
        int count = 0;
        for (it->seek(""); it->valid(); it->next()) ++count;
        EXPECT_EQ(count, 200);
        EXPECT_EQ(**view->get("key7"), expected);
      }
    });
  }
  for (auto& reader : readers) reader.join();
}

}  // namespace uccp::storage
