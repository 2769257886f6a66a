// Random commands against a model that keeps the whole store at every revision: answers, ranges at any revision, the
// log of changes. The model knows nothing of rows.
#include <gtest/gtest.h>

#include <map>

#include "base/random.h"
#include "services/kv/kv_past.h"
#include "services/kv/kv_test_lab.h"

namespace uccp::kv {
namespace {

struct Stored {
  std::string value;
  int64_t create = 0, mod = 0, version = 0, lease = 0;
  bool operator==(const Stored&) const = default;
};
using Store = std::map<std::string, Stored>;
struct Changed {
  int64_t revision;
  std::string key;
  bool put;
  bool operator==(const Changed&) const = default;
};

class Model {
 public:
  Model() : at_{{1, {}}} {}

  const Store& now() const { return at_.rbegin()->second; }
  const Store& at(int64_t revision) const { return at_.at(revision == 0 ? this->revision() : revision); }
  int64_t revision() const { return at_.rbegin()->first; }

  // Changes of one command: begin, then put and erase, then commit.
  void begin() { draft_ = now(); }
  const Store& draft() const { return draft_; }
  void put(const std::string& key, const std::string& value, int64_t lease) {
    const int64_t next = revision() + 1;
    auto& stored = draft_[key];
    const bool fresh = stored.mod == 0;
    stored = {value, fresh ? next : stored.create, next, fresh ? 1 : stored.version + 1, lease};
    pending_.push_back({next, key, true});
  }
  int64_t erase(const KeyRange& range) {
    int64_t erased = 0;
    for (auto it = draft_.begin(); it != draft_.end();) {
      if (!range.contains(it->first)) {
        ++it;
        continue;
      }
      pending_.push_back({revision() + 1, it->first, false});
      it = draft_.erase(it);
      ++erased;
    }
    return erased;
  }
  void commit() {
    if (pending_.empty()) return;
    at_[revision() + 1] = draft_;
    log.insert(log.end(), pending_.begin(), pending_.end());
    pending_.clear();
  }

  std::vector<Changed> log;

 private:
  std::map<int64_t, Store> at_;
  Store draft_;
  std::vector<Changed> pending_;
};

class KvProperty : public ::testing::TestWithParam<uint64_t> {
 protected:
  std::string key() {
    std::string text(1, static_cast<char>('a' + below(3)));
    for (int n = below(3); n > 0; --n) text.push_back("a\0b\xff"[below(4)]);
    return text;
  }
  int below(int bound) { return static_cast<int>(random_.below(static_cast<uint64_t>(bound))); }
  std::string value() { return std::string(static_cast<size_t>(below(20)), static_cast<char>('A' + below(26))); }

  template <typename Request>
  void choose_range(Request& request) {
    switch (below(4)) {
      case 0: request.set_key(key()); break;
      case 1: request.set_prefix(key()); break;
      case 2:
        request.set_key(key());
        request.set_range_end(key());
        break;
      default:
        request.set_key(key());
        request.set_range_end(std::string(1, '\0'));
        break;
    }
  }
  static Stored stored(const v1::KeyValuePair& p) {
    return {p.value(), p.create_revision(), p.mod_revision(), p.version(), p.lease()};
  }

  void put() {
    v1::PutRequest request;
    request.set_key(key());
    request.set_value(value());
    request.set_prev_kv(true);
    const bool exists = model_.now().contains(request.key());
    if (exists && random_.chance(0.2)) {
      request.clear_value();
      request.set_ignore_value(true);
    }
    const auto response = lab_.put(request);
    ASSERT_TRUE(response.has_value());
    EXPECT_EQ(response->has_prev_kv(), exists);
    if (exists) EXPECT_EQ(stored(response->prev_kv()), model_.now().at(request.key()));
    model_.begin();
    model_.put(request.key(), request.ignore_value() ? model_.now().at(request.key()).value : request.value(), 0);
    model_.commit();
    EXPECT_EQ(response->revision(), model_.revision());
  }

  void erase() {
    v1::DeleteRequest request;
    choose_range(request);
    const auto response = lab_.erase(request);
    ASSERT_TRUE(response.has_value());
    model_.begin();
    EXPECT_EQ(response->deleted(), model_.erase(*range_of(request)));
    model_.commit();
    EXPECT_EQ(response->revision(), model_.revision());
  }

  v1::KeyCompare compare() {
    v1::KeyCompare compare;
    choose_range(compare);
    compare.set_result(static_cast<v1::CompareResult>(below(5)));
    switch (below(4)) {
      case 0: compare.set_version(below(4)); break;
      case 1: compare.set_create_revision(below(static_cast<int>(model_.revision() + 1))); break;
      case 2: compare.set_mod_revision(below(static_cast<int>(model_.revision() + 1))); break;
      default: compare.set_value(value()); break;
    }
    return compare;
  }
  static bool holds(const v1::KeyCompare& compare, const Stored* stored) {
    if (compare.has_value() && stored == nullptr) return false;
    const Stored s = stored == nullptr ? Stored() : *stored;
    int order = 0;
    const auto of = [&](const auto& a, const auto& b) { order = a < b ? -1 : a > b ? 1 : 0; };
    if (compare.has_value()) of(s.value, compare.value());
    if (compare.has_version()) of(s.version, compare.version());
    if (compare.has_create_revision()) of(s.create, compare.create_revision());
    if (compare.has_mod_revision()) of(s.mod, compare.mod_revision());
    switch (compare.result()) {
      case v1::COMPARE_RESULT_GREATER: return order > 0;
      case v1::COMPARE_RESULT_LESS: return order < 0;
      case v1::COMPARE_RESULT_NOT_EQUAL: return order != 0;
      default: return order == 0;
    }
  }
  bool all_hold(const v1::TxnRequest& request) const {
    for (const auto& compare : request.compare()) {
      const KeyRange range = *range_of(compare);
      bool any = false;
      for (const auto& [key, stored] : model_.now()) {
        if (!range.contains(key)) continue;
        any = true;
        if (!holds(compare, &stored)) return false;
      }
      if (!any && !holds(compare, nullptr)) return false;
    }
    return true;
  }

  v1::TxnRequest txn(int depth) {
    v1::TxnRequest request;
    for (int n = below(3); n > 0; --n) *request.add_compare() = compare();
    for (auto* list : {request.mutable_success(), request.mutable_failure()}) {
      for (int n = below(4); n > 0; --n) {
        v1::TxnOperation& operation = *list->Add();
        switch (below(depth > 0 ? 4 : 3)) {
          case 0:
            operation.mutable_put()->set_key(key());
            operation.mutable_put()->set_value(value());
            break;
          case 1: choose_range(*operation.mutable_delete_()); break;
          case 2: choose_range(*operation.mutable_range()); break;
          default: *operation.mutable_txn() = txn(depth - 1); break;
        }
      }
    }
    return request;
  }
  void check_txn_answer(const v1::TxnRequest& request, const v1::TxnResponse& response) {
    EXPECT_EQ(response.succeeded(), all_hold(request));
    const auto& list = response.succeeded() ? request.success() : request.failure();
    ASSERT_EQ(response.responses_size(), list.size());
    for (int i = 0; i < list.size(); ++i) {
      const auto& operation = list[i];
      const auto& result = response.responses(i);
      if (operation.has_put()) {
        ASSERT_TRUE(result.has_put());
        model_.put(operation.put().key(), operation.put().value(), 0);
      } else if (operation.has_delete_()) {
        EXPECT_EQ(result.delete_().deleted(), model_.erase(*range_of(operation.delete_())));
      } else if (operation.has_range()) {
        const KeyRange range = *range_of(operation.range());
        Store expected, got;
        for (const auto& [key, stored] : model_.draft()) {
          if (range.contains(key)) expected[key] = stored;
        }
        for (const auto& pair : result.range().pairs()) got[pair.key()] = stored(pair);
        EXPECT_EQ(got, expected);
      } else {
        check_txn_answer(operation.txn(), result.txn());
      }
    }
  }
  void transact() {
    const v1::TxnRequest request = txn(2);
    const auto response = lab_.txn(request);
    if (!response) {
      EXPECT_EQ(response.error().reason(), "DUPLICATE_KEY");
      return;
    }
    ++transactions_;
    model_.begin();
    check_txn_answer(request, *response);
    model_.commit();
    EXPECT_EQ(response->revision(), model_.revision());
  }

  int64_t any_revision() {
    const int64_t oldest = std::max<int64_t>(compacted_, 1);
    return random_.chance(0.3) ? 0 : oldest + below(static_cast<int>(model_.revision() - oldest + 1));
  }
  void read() {
    v1::RangeRequest request;
    choose_range(request);
    request.set_revision(any_revision());
    request.set_order_by(static_cast<v1::KeyOrder>(below(6)));
    request.set_descending(random_.chance(0.3));
    request.set_limit(below(4));
    request.set_count_total(true);
    if (random_.chance(0.2)) request.set_min_mod_revision(below(static_cast<int>(model_.revision())));
    if (random_.chance(0.2)) request.set_max_create_revision(below(static_cast<int>(model_.revision())));
    const auto response = lab_.range(request, 1 + static_cast<size_t>(below(5)));
    ASSERT_TRUE(response.has_value()) << response.error().to_string();
    const KeyRange range = *range_of(request);
    std::vector<std::pair<std::string, Stored>> expected;
    int64_t count = 0;
    for (const auto& [key, stored] : model_.at(request.revision())) {
      if (!range.contains(key)) continue;
      ++count;
      if (stored.mod < request.min_mod_revision()) continue;
      if (request.max_create_revision() > 0 && stored.create > request.max_create_revision()) continue;
      expected.emplace_back(key, stored);
    }
    std::ranges::sort(expected, [&](const auto& a, const auto& b) {
      const auto by = [&](const auto& x, const auto& y) {
        if (x == y) return a.first < b.first;
        return request.descending() ? y < x : x < y;
      };
      switch (request.order_by()) {
        case v1::KEY_ORDER_VERSION: return by(a.second.version, b.second.version);
        case v1::KEY_ORDER_CREATE_REVISION: return by(a.second.create, b.second.create);
        case v1::KEY_ORDER_MOD_REVISION: return by(a.second.mod, b.second.mod);
        case v1::KEY_ORDER_VALUE: return by(a.second.value, b.second.value);
        default: return by(a.first, b.first);
      }
    });
    const bool more = request.limit() > 0 && expected.size() > static_cast<size_t>(request.limit());
    if (more) expected.resize(static_cast<size_t>(request.limit()));
    std::vector<std::pair<std::string, Stored>> got;
    for (const auto& pair : response->pairs()) got.emplace_back(pair.key(), stored(pair));
    EXPECT_EQ(got, expected) << request.ShortDebugString();
    EXPECT_EQ(response->more(), more);
    EXPECT_EQ(response->count(), count);
  }

  void read_log() {
    EventFilter filter;
    filter.range.from = key();
    const int64_t from = std::max<int64_t>(compacted_, 1) + below(static_cast<int>(model_.revision()));
    std::vector<Changed> expected, got;
    for (const Changed& change : model_.log) {
      if (change.revision >= from && filter.range.contains(change.key)) expected.push_back(change);
    }
    LogPlace place{static_cast<uint64_t>(from), 0};
    while (true) {
      const auto chunk = PastReader::read(lab_.machine().view(), kLabScope, filter, place,
                                          1 + static_cast<size_t>(below(5)), static_cast<size_t>(below(200)));
      ASSERT_EQ(chunk.compacted, 0u);
      v1::WatchResponse item;
      ASSERT_TRUE(item.ParseFromString(chunk.events));
      for (const auto& event : item.events()) {
        const bool is_put = event.kind() == v1::KEY_EVENT_KIND_PUT;
        got.push_back({event.pair().mod_revision(), event.pair().key(), is_put});
        if (is_put) EXPECT_EQ(stored(event.pair()), model_.at(event.pair().mod_revision()).at(event.pair().key()));
      }
      place = chunk.next;
      if (chunk.whole) break;
    }
    EXPECT_EQ(got, expected);
  }

  void compact() {
    const int64_t revision = compacted_ + 1 + below(static_cast<int>(model_.revision() - compacted_));
    ASSERT_TRUE(lab_.compact(revision).is_ok());
    compacted_ = revision;
    if (random_.chance(0.7)) lab_.sweep(1 + static_cast<uint32_t>(below(10)));
  }

  KvLab lab_;
  Model model_;
  SeededRandom random_{GetParam()};
  int64_t compacted_ = 0;
  int transactions_ = 0;
};

TEST_P(KvProperty, BehavesAsTheModel) {
  for (int step = 0; step < 600 && !HasFailure(); ++step) {
    switch (below(20)) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4: put(); break;
      case 5:
      case 6: erase(); break;
      case 7:
      case 8:
      case 9:
      case 10: transact(); break;
      case 11:
        if (model_.revision() > compacted_ && random_.chance(0.3)) compact();
        break;
      case 12: read_log(); break;
      default: read(); break;
    }
    ASSERT_FALSE(HasFailure()) << "seed " << GetParam() << ", step " << step;
  }
  EXPECT_GT(transactions_, 20);
  lab_.sweep(50);
  // Nothing is left of what was given up: each version that is kept can be read at some revision.
  size_t kept = 0;
  for (int64_t r = std::max<int64_t>(compacted_, 1); r < model_.revision(); ++r) {
    for (const auto& [key, stored] : model_.at(r)) {
      const auto next = model_.at(r + 1).find(key);
      if (next == model_.at(r + 1).end() || next->second.mod != stored.mod) ++kept;
    }
  }
  for (const Changed& change : model_.log) kept += !change.put && change.revision > compacted_ ? 1 : 0;
  EXPECT_EQ(lab_.rows_of(kHistoryTable), kept);
}

INSTANTIATE_TEST_SUITE_P(Seeds, KvProperty, ::testing::Range<uint64_t>(1, 21));

}  // namespace
}  // namespace uccp::kv
