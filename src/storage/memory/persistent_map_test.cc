#include "storage/memory/persistent_map.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "base/random.h"

namespace uccp::storage {
namespace {

using Model = std::map<std::string, std::string>;

// Everything that can be asked about the version at `root` is what the model says.
void expect_same(const PersistentMap::Root& root, const Model& model) {
  PersistentMap::Cursor cursor(root.get());
  cursor.seek("");
  for (const auto& [key, value] : model) {
    ASSERT_TRUE(cursor.valid());
    EXPECT_EQ(cursor.key(), key);
    EXPECT_EQ(cursor.value(), value);
    EXPECT_EQ(PersistentMap::find(root.get(), key), value);
    cursor.next();
  }
  EXPECT_FALSE(cursor.valid());
  cursor.seek_before("\xff");
  for (auto it = model.rbegin(); it != model.rend(); ++it) {
    ASSERT_TRUE(cursor.valid());
    EXPECT_EQ(cursor.key(), it->first);
    cursor.previous();
  }
  EXPECT_FALSE(cursor.valid());
}

void expect_seeks(const PersistentMap::Root& root, const Model& model, const std::string& key) {
  PersistentMap::Cursor cursor(root.get());
  cursor.seek(key);
  const auto at = model.lower_bound(key);
  ASSERT_EQ(cursor.valid(), at != model.end());
  if (cursor.valid()) EXPECT_EQ(cursor.key(), at->first);
  cursor.seek_before(key);
  ASSERT_EQ(cursor.valid(), at != model.begin());
  if (cursor.valid()) EXPECT_EQ(cursor.key(), std::prev(at)->first);
  EXPECT_EQ(PersistentMap::find(root.get(), key).has_value(), model.contains(key));
}

struct Version {
  PersistentMap::Root root;
  Model model;
  uint64_t bytes = 0;
};

class Walk {
 public:
  explicit Walk(uint64_t seed) : random_(seed) {}

  void step() {
    const uint64_t choice = random_.below(100);
    if (choice < 60) return put(any_key(), std::string(random_.below(random_.below(20) == 0 ? 6000 : 60), 'v'));
    if (choice < 63) {
      for (uint64_t i = 0; i < 60; ++i) put("order" + std::to_string(100'000 + ++ordered_), "x");
      return;
    }
    if (choice < 85) return erase(any_key());
    if (choice < 88) return erase_range(any_key(), any_key());
    if (choice < 97) return versions_.push_back({map_.freeze(), model_, map_.bytes()});
    if (choice < 98 && !versions_.empty()) return revert(versions_[random_.below(versions_.size())]);
  }
  void check() {
    versions_.push_back({map_.freeze(), model_, map_.bytes()});
    EXPECT_EQ(map_.size(), model_.size());
    uint64_t bytes = 0;
    for (const auto& [key, value] : model_) bytes += key.size() + value.size();
    EXPECT_EQ(map_.bytes(), bytes);
    for (const Version& version : versions_) {
      expect_same(version.root, version.model);
      for (int i = 0; i < 20; ++i) expect_seeks(version.root, version.model, any_key());
    }
  }

 private:
  std::string any_key() { return (random_.below(2) == 0 ? "key" : "order100") + std::to_string(random_.below(900)); }
  void put(const std::string& key, const std::string& value) {
    map_.put(key, value);
    model_[key] = value;
  }
  void erase(const std::string& key) {
    map_.erase(key);
    model_.erase(key);
  }
  void erase_range(const std::string& from, const std::string& to) {
    if (random_.below(4) > 0 && to.size() == from.size()) return;  // mostly short ones
    map_.erase_range(from, to);
    if (from < to) model_.erase(model_.lower_bound(from), model_.lower_bound(to));
  }
  void revert(const Version& version) {
    map_.revert(version.root, version.bytes, version.model.size());
    model_ = version.model;
  }

  SeededRandom random_;
  PersistentMap map_;
  Model model_;
  std::vector<Version> versions_;
  uint64_t ordered_ = 0;
};

TEST(PersistentMap, EachVersionIsWhatAnOrderedMapWouldBe) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    Walk walk(seed);
    for (int i = 0; i < 400; ++i) walk.step();
    walk.check();
    if (HasFailure()) FAIL() << "seed " << seed;
  }
}

TEST(PersistentMap, AVersionKeepsWhatWasOverwrittenSince) {
  PersistentMap map;
  map.put("a", "1");
  const PersistentMap::Root before = map.freeze();
  map.put("a", "2");
  map.put("a", "3");
  map.put("b", "4");
  expect_same(before, {{"a", "1"}});
  expect_same(map.freeze(), {{"a", "3"}, {"b", "4"}});
}

TEST(PersistentMap, AValueThatIsReplacedManyTimesTakesItsPlaceOnce) {
  PersistentMap map;
  map.put("other", "kept");
  for (int i = 0; i < 10'000; ++i) map.put("a", std::string(1000, static_cast<char>('a' + i % 26)));
  expect_same(map.freeze(), {{"a", std::string(1000, static_cast<char>('a' + 9'999 % 26))}, {"other", "kept"}});
  EXPECT_EQ(map.bytes(), 1010u);
}

}  // namespace
}  // namespace uccp::storage
