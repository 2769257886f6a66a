// The rules of the key-value store, one a test. Values of the rows are checked by the lab after every command.
#include <gtest/gtest.h>

#include "services/kv/kv_test_lab.h"

namespace uccp::kv {
namespace {

v1::RangeRequest prefix(const std::string& prefix) {
  v1::RangeRequest request;
  request.set_prefix(prefix);
  return request;
}
std::string keys_of(const v1::RangeResponse& response) {
  std::string keys;
  for (const auto& pair : response.pairs()) keys += (keys.empty() ? "" : " ") + pair.key();
  return keys;
}

TEST(KvState, AStoreBeginsAtRevisionOneAndEachChangeRaisesIt) {
  KvLab lab;
  EXPECT_EQ(lab.head().revision, 1u);
  EXPECT_EQ(lab.put("a", "1"), 2);
  EXPECT_EQ(lab.put("b", "1"), 3);
  EXPECT_EQ(lab.put("a", "2"), 4);
  const auto a = lab.get("a");
  ASSERT_TRUE(a);
  EXPECT_EQ(a->value(), "2");
  EXPECT_EQ(a->create_revision(), 2);
  EXPECT_EQ(a->mod_revision(), 4);
  EXPECT_EQ(a->version(), 2);
}

TEST(KvState, OldVersionsStayReadable) {
  KvLab lab;
  lab.put("a", "1");
  lab.put("a", "2");
  lab.erase("a");
  lab.put("a", "4");
  EXPECT_FALSE(lab.get("a", 1));
  EXPECT_EQ(lab.get("a", 2)->value(), "1");
  EXPECT_EQ(lab.get("a", 3)->value(), "2");
  EXPECT_FALSE(lab.get("a", 4));
  EXPECT_EQ(lab.get("a", 5)->value(), "4");
  EXPECT_EQ(lab.get("a", 5)->version(), 1) << "a key made again counts from one";
  EXPECT_EQ(lab.get("a", 5)->create_revision(), 5);
}

TEST(KvState, KeysThatBeginAlikeAreNotMixedUp) {
  KvLab lab;
  const std::string zero("a\0", 2), more("a\0b", 3);
  lab.put("a", "1");
  lab.put(zero, "2");
  lab.put(more, "3");
  lab.put("ab", "4");
  for (const auto& key : {std::string("a"), zero, more, std::string("ab")}) lab.put(key, "new");
  EXPECT_EQ(lab.get("a", 5)->value(), "1");
  EXPECT_EQ(lab.get(zero, 5)->value(), "2");
  EXPECT_EQ(lab.get(more, 5)->value(), "3");
  EXPECT_EQ(lab.get("ab", 5)->value(), "4");
  EXPECT_FALSE(lab.get(more, 3));
  auto request = prefix(zero);
  request.set_revision(5);
  EXPECT_EQ(lab.range(request)->pairs_size(), 2);
}

TEST(KvState, DeletingNothingUsesNoRevision) {
  KvLab lab;
  EXPECT_EQ(lab.erase("a"), 0);
  EXPECT_EQ(lab.head().revision, 1u);
  lab.put("a", "1");
  EXPECT_EQ(lab.erase("a"), 1);
  EXPECT_EQ(lab.head().revision, 3u);
}

TEST(KvState, ADeletedRangeIsOneRevision) {
  KvLab lab;
  for (const char* key : {"a", "b", "c", "d"}) lab.put(key, key);
  v1::DeleteRequest request;
  request.set_key("b");
  request.set_range_end("d");
  request.set_prev_kv(true);
  const auto deleted = lab.erase(request);
  EXPECT_EQ(deleted->deleted(), 2);
  EXPECT_EQ(deleted->revision(), 6);
  EXPECT_EQ(deleted->prev_kvs(1).value(), "c");
  EXPECT_EQ(keys_of(*lab.range(prefix(""))), "a d");
  v1::RangeRequest before;
  before.set_revision(5);
  EXPECT_EQ(keys_of(*lab.range(before)), "a b c d");
}

TEST(KvState, APutAnswersTheVersionBefore) {
  KvLab lab;
  lab.put("a", "1");
  v1::PutRequest request;
  request.set_key("a");
  request.set_value("2");
  request.set_prev_kv(true);
  const auto response = lab.put(request);
  EXPECT_EQ(response->prev_kv().value(), "1");
  EXPECT_EQ(response->prev_kv().mod_revision(), 2);
}

TEST(KvState, APutMayKeepTheValueOrTheLease) {
  KvLab lab;
  const int64_t lease = lab.grant(10'000);
  lab.put("a", "1", lease);
  v1::PutRequest request;
  request.set_key("a");
  request.set_ignore_lease(true);
  request.set_value("2");
  EXPECT_TRUE(lab.put(request).has_value());
  EXPECT_EQ(lab.get("a")->lease(), lease);
  request.set_ignore_lease(false);
  request.set_ignore_value(true);
  EXPECT_EQ(lab.put(request).error().reason(), "VALUE_PROVIDED");
  request.clear_value();
  EXPECT_TRUE(lab.put(request).has_value());
  EXPECT_EQ(lab.get("a")->value(), "2");
  EXPECT_EQ(lab.get("a")->lease(), 0);
  request.set_key("b");
  EXPECT_EQ(lab.put(request).error().reason(), "KEY_NOT_FOUND");
}

TEST(KvState, APutMayDemandTheRevisionItRead) {
  KvLab lab;
  v1::PutRequest request;
  request.set_key("a");
  request.set_if_match("0");
  EXPECT_EQ(lab.put(request)->revision(), 2);
  EXPECT_EQ(lab.put(request).error().reason(), "ETAG_MISMATCH");
  request.set_if_match("2");
  EXPECT_EQ(lab.put(request)->revision(), 3);
  v1::DeleteRequest erase;
  erase.set_key("a");
  erase.set_if_match("2");
  EXPECT_EQ(lab.erase(erase).error().reason(), "ETAG_MISMATCH");
  erase.set_if_match("3");
  EXPECT_EQ(lab.erase(erase)->deleted(), 1);
}

TEST(KvState, NamespacesAreStoresOfTheirOwn) {
  KvLab lab;
  lab.put("a", "1");
  internal::v1::KvPutCommand command;
  command.mutable_request()->set_key("a");
  *command.mutable_limits() = lab.limits;
  ASSERT_TRUE(lab.apply("kv.put", command.SerializeAsString(), {"t", "other"}).has_value());
  EXPECT_EQ(lab.head({"t", "other"}).revision, 2u);
  EXPECT_EQ(lab.head().revision, 2u);
  EXPECT_EQ(lab.get("a")->value(), "1");
}

TEST(KvState, QuotasOfBytesAndKeysHold) {
  KvLab lab;
  lab.limits.set_keys_max(2);
  lab.put("a", "1");
  lab.put("b", "1");
  v1::PutRequest request;
  request.set_key("c");
  EXPECT_EQ(lab.put(request).error().reason(), "KV_KEYS_EXHAUSTED");
  lab.put("a", "2");
  EXPECT_EQ(lab.erase("b"), 1);
  EXPECT_TRUE(lab.put(request).has_value());
  lab.limits.set_bytes_max(lab.head().bytes + lab.head().history_bytes + 50);
  request.set_value(std::string(100, 'x'));
  EXPECT_EQ(lab.put(request).error().reason(), "KV_BYTES_EXHAUSTED");
  EXPECT_EQ(lab.head().revision, 6u) << "a refused put uses no revision";
  internal::v1::KvQuotaCommand quota;
  quota.mutable_request()->set_bytes_max(1 << 20);
  EXPECT_EQ(lab.run<v1::KeyValueStore>("quota", quota)->bytes_max(), 1u << 20);
  EXPECT_TRUE(lab.put(request).has_value()) << "the namespace's own quota counts";
}

TEST(KvState, RangesAreCutSortedFilteredAndCounted) {
  KvLab lab;
  for (const char* key : {"b", "d", "a", "c"}) lab.put(key, std::string(key) == "a" ? "z" : key);
  lab.put("a", "y");
  v1::RangeRequest request;
  request.set_limit(2);
  auto page = *lab.range(request);
  EXPECT_EQ(keys_of(page), "a b");
  EXPECT_TRUE(page.more());
  EXPECT_EQ(page.next_key(), "c");
  EXPECT_EQ(page.count(), 0);
  request.set_count_total(true);
  EXPECT_EQ(lab.range(request, 1)->count(), 4);
  request.set_key(page.next_key());
  request.set_range_end(std::string(1, '\0'));
  EXPECT_EQ(keys_of(*lab.range(request)), "c d");
  v1::RangeRequest sorted;
  sorted.set_order_by(v1::KEY_ORDER_CREATE_REVISION);
  EXPECT_EQ(keys_of(*lab.range(sorted)), "b d a c");
  sorted.set_descending(true);
  sorted.set_limit(3);
  EXPECT_EQ(keys_of(*lab.range(sorted, 1)), "c a d");
  EXPECT_TRUE(lab.range(sorted)->more());
  sorted.set_order_by(v1::KEY_ORDER_VALUE);
  sorted.set_keys_only(true);
  EXPECT_EQ(keys_of(*lab.range(sorted)), "a d c");
  EXPECT_EQ(lab.range(sorted)->pairs(0).value(), "");
  v1::RangeRequest filtered;
  filtered.set_min_mod_revision(4);
  filtered.set_max_create_revision(4);
  EXPECT_EQ(keys_of(*lab.range(filtered)), "a");
  EXPECT_EQ(lab.range(filtered)->count(), 4);
  v1::RangeRequest counted;
  counted.set_count_only(true);
  EXPECT_EQ(lab.range(counted)->count(), 4);
  EXPECT_EQ(lab.range(counted)->pairs_size(), 0);
}

TEST(KvState, ARangeThatCannotBeSortedInOneAnswerSaysSo) {
  KvLab lab;
  for (int i = 0; i < 4; ++i) lab.put("k" + std::to_string(i), std::string(1 << 20, 'x'));
  v1::RangeRequest request;
  request.set_descending(true);
  EXPECT_EQ(lab.range(request).error().reason(), "RANGE_TOO_LARGE");
  request.set_limit(1);
  EXPECT_EQ(keys_of(*lab.range(request)), "k3");
  request.clear_limit();
  request.set_descending(false);
  EXPECT_EQ(keys_of(*lab.range(request)), "k0 k1");
  EXPECT_EQ(lab.range(request)->next_key(), "k2");
}

TEST(KvState, WatchersAreToldEachRevisionAndNothingIsKeptForThem) {
  KvLab lab;
  lab.put("a", "1");
  lab.put("a", "2");
  lab.changes.clear();
  v1::DeleteRequest request;
  request.set_prefix("a");
  ASSERT_TRUE(lab.erase(request).has_value());
  ASSERT_EQ(lab.changes.size(), 1u);
  EXPECT_FALSE(lab.changes[0].kept);
  EXPECT_EQ(ByteReader(lab.changes[0].key).u64(), 4u);
  const auto events = decode_events(lab.changes[0].payload);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].kind, ChangeKind::kDelete);
  EXPECT_EQ(events[0].key, "a");
  EXPECT_EQ(decode_version(events[0].before)->value, "2");
  EXPECT_TRUE(machine::read_changes(lab.machine().view(), LogIndex(0), 10)->empty());
}

TEST(KvState, ALeaseEndsWithAllItsKeysInOneRevision) {
  KvLab lab;
  const int64_t lease = lab.grant(5'000);
  lab.put("a", "1", lease);
  lab.put("b", "1", lease);
  lab.put("c", "1");
  const int64_t other = lab.grant(60'000, 7);
  EXPECT_EQ(other, 7);
  lab.put("b", "2", other);
  lab.advance(5'000);
  EXPECT_FALSE(lab.get("a"));
  EXPECT_TRUE(lab.get("b")) << "it went over to another lease";
  EXPECT_EQ(lab.head().revision, 6u);
  EXPECT_EQ(lab.head().leases, 1u);
  lab.put("d", "1", other);
  const auto revoked = lab.revoke(other);
  EXPECT_EQ(revoked->deleted(), 2);
  EXPECT_EQ(revoked->revision(), 8);
  EXPECT_EQ(lab.revoke(other).error().reason(), "LEASE_NOT_FOUND");
  v1::PutRequest request;
  request.set_key("e");
  request.set_lease(other);
  EXPECT_EQ(lab.put(request).error().reason(), "LEASE_NOT_FOUND");
}

TEST(KvState, ACompactionKeepsWhatIsReadableAndSweepingRemovesTheRest) {
  KvLab lab;
  for (int i = 0; i < 10; ++i) lab.put("a", std::to_string(i));  // 2..11
  lab.put("b", "1");                                             // 12
  lab.erase("b");                                                // 13
  lab.put("c", "1");                                             // 14
  EXPECT_EQ(lab.compact(15).reason(), "REVISION_FUTURE");
  ASSERT_TRUE(lab.compact(8).is_ok());
  EXPECT_EQ(lab.compact(8).reason(), "REVISION_COMPACTED");
  v1::RangeRequest request;
  request.set_key("a");
  request.set_revision(7);
  EXPECT_EQ(lab.range(request).error().reason(), "REVISION_COMPACTED");
  EXPECT_EQ(lab.get("a", 8)->value(), "6");
  EXPECT_GT(lab.sweep(2), 3);
  EXPECT_EQ(lab.get("a", 8)->value(), "6");
  EXPECT_EQ(lab.get("b", 12)->value(), "1");
  EXPECT_EQ(lab.rows_of(kHistoryTable), 3u + 2u);
  EXPECT_EQ(lab.rows_of(kRevisionTable), 7u);
  ASSERT_TRUE(lab.compact(14).is_ok());
  lab.sweep(100);
  EXPECT_EQ(lab.rows_of(kHistoryTable), 0u);
  EXPECT_EQ(lab.rows_of(kRevisionTable), 1u);
  EXPECT_EQ(lab.get("a")->value(), "9");
}

}  // namespace
}  // namespace uccp::kv
