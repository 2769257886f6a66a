// The methods as clients call them, on a node of one in virtual time.
#include "services/kv/kv_service.h"

#include <gtest/gtest.h>

#include "services/coordination_test_node.h"
#include "services/kv/kv_state.h"

namespace uccp::kv {
namespace {

using coordination::Exchange;

class KvServiceTest : public ::testing::Test {
 protected:
  KvServiceTest() : test_({&state_}), sweeper_(test_.node, test_.node, test_.loop, test_.work) {
    options_.request_bytes_max = 4096;
    options_.leases_max = 3;
    service_ = std::make_unique<KvService>(
        options_, KvEnvironment{test_.node, test_.node, test_.node, test_.node, sweeper_, test_.watch, test_.work,
                                test_.clock, test_.metrics, test_.signer});
    service_->add_handlers(test_.handlers);
    test_.node.on_leadership(kCoreGroup, [this](bool ready, Term) { sweeper_.on_leadership(ready); });
    test_.start();
  }

  Exchange begin(const std::string& rpc, const std::string& json) { return test_.begin("KeyValue/" + rpc, json, {}); }
  Exchange ask(const std::string& rpc, const std::string& json) { return test_.ask("KeyValue/" + rpc, json); }
  int64_t put(const std::string& key, const std::string& value, const std::string& more = "") {
    return ask("Put", R"({"key":")" + key + R"(","value":")" + value + "\"" + more + "}")
        .answer<v1::PutResponse>()
        .revision();
  }
  // Items of a watch so far.
  static std::vector<v1::WatchResponse> items(const Exchange& x) {
    std::vector<v1::WatchResponse> items;
    for (const std::string& message : x.sink->messages) {
      EXPECT_TRUE(items.emplace_back().ParseFromString(message));
    }
    return items;
  }
  // "+a=1@2 -a@3": the events so far.
  static std::string events(const Exchange& x) {
    std::string text;
    for (const auto& item : items(x)) {
      for (const auto& event : item.events()) {
        const bool put = event.kind() == v1::KEY_EVENT_KIND_PUT;
        text += (text.empty() ? "" : " ") + std::string(put ? "+" : "-") + event.pair().key();
        if (put) text += "=" + event.pair().value();
        if (event.has_prev_kv()) text += "<" + event.prev_kv().value();
        text += "@" + std::to_string(event.pair().mod_revision());
      }
    }
    return text;
  }
  void settle() { test_.scheduler.run_for_ms(100); }

  KvState state_;
  KvOptions options_;
  coordination::TestNode test_;
  KvSweeper sweeper_;
  std::unique_ptr<KvService> service_;
};

TEST_F(KvServiceTest, PutGetRangeDelete) {
  EXPECT_EQ(put("app/a", "1"), 2);
  EXPECT_EQ(put("app/b", "2"), 3);
  EXPECT_EQ(put("app/a", "3"), 4);
  EXPECT_EQ(ask("Get", R"({"key":"app/a"})").answer<v1::KeyValuePair>().value(), "3");
  EXPECT_EQ(ask("Get", R"({"key":"app/a","revision":3})").answer<v1::KeyValuePair>().value(), "1");
  EXPECT_EQ(ask("Get", R"({"key":"app/c"})").reason(), "KEY_NOT_FOUND");
  EXPECT_EQ(ask("Get", R"({"key":"app/a","revision":9})").reason(), "REVISION_FUTURE");
  const auto range = ask("Range", R"({"prefix":"app/"})").answer<v1::RangeResponse>();
  EXPECT_EQ(range.pairs_size(), 2);
  EXPECT_EQ(range.revision(), 4);
  EXPECT_EQ(range.count(), 2);
  EXPECT_EQ(ask("Delete", R"({"key":"app/a"})").answer<v1::DeleteResponse>().deleted(), 1);
  EXPECT_EQ(ask("Delete", "{}").reason(), "RANGE_INVALID");
  EXPECT_EQ(ask("Range", R"({"prefix":"a","rangeEnd":"b"})").reason(), "RANGE_INVALID");
}

TEST_F(KvServiceTest, ARepeatWithTheSameRequestIdWritesOnce) {
  coordination::TestNode::Client client;
  client.request_id = "r1";
  const auto first = test_.ask("KeyValue/Put", R"({"key":"a","value":"1"})", client).answer<v1::PutResponse>();
  const auto second = test_.ask("KeyValue/Put", R"({"key":"a","value":"1"})", client).answer<v1::PutResponse>();
  EXPECT_EQ(first.revision(), second.revision());
  EXPECT_EQ(test_.ask("KeyValue/Put", R"({"key":"a","value":"2"})", client).reason(), "REQUEST_ID_REUSED");
}

TEST_F(KvServiceTest, WhatIsTooLargeIsRefused) {
  const std::string large(5000, 'x');
  EXPECT_EQ(ask("Put", R"({"key":"a","value":")" + large + "\"}").reason(), "KV_REQUEST_TOO_LARGE");
}

TEST_F(KvServiceTest, LongRangesAreReadInStepsAndAreWhole) {
  for (int i = 0; i < 9'000; i += 100) {
    std::string json = R"({"success":[)";
    for (int k = i; k < i + 100; ++k) {
      json += (k > i ? "," : "") + std::string(R"({"put":{"key":"k)") + std::to_string(100'000 + k) + "\"}}";
    }
    ASSERT_EQ(ask("Txn", json + "]}").reason(), "") << i;
  }
  const auto range = ask("Range", R"({"keysOnly":true})").answer<v1::RangeResponse>();
  EXPECT_EQ(range.pairs_size(), 9'000);
  EXPECT_EQ(range.count(), 9'000);
  EXPECT_EQ(ask("Range", R"({"countOnly":true})").answer<v1::RangeResponse>().count(), 9'000);
}

TEST_F(KvServiceTest, TransactionsCompareAndChange) {
  put("a", "1");
  const std::string swap =
      R"({"compare":[{"key":"a","result":"EQUAL","value":"1"}],
          "success":[{"put":{"key":"a","value":"2"}},{"range":{"key":"a"}}],
          "failure":[{"range":{"key":"a"}}]})";
  const auto first = ask("Txn", swap).answer<v1::TxnResponse>();
  EXPECT_TRUE(first.succeeded());
  EXPECT_EQ(first.revision(), 3);
  EXPECT_EQ(first.responses(1).range().pairs(0).value(), "2") << "sees what the transaction wrote";
  const auto second = ask("Txn", swap).answer<v1::TxnResponse>();
  EXPECT_FALSE(second.succeeded());
  EXPECT_EQ(second.revision(), 3) << "a transaction that changes nothing uses no revision";
  EXPECT_EQ(ask("Txn", R"({"success":[{"put":{"key":"a"}},{"delete":{"prefix":"a"}}]})").reason(), "DUPLICATE_KEY");
  EXPECT_EQ(ask("Txn", R"({"success":[{}]})").reason(), "TXN_INVALID");
}

TEST_F(KvServiceTest, CompactionIsSweptInTheBackground) {
  for (int i = 0; i < 250; ++i) put("a", std::to_string(i));
  settle();
  const LogIndex before = test_.last();
  const auto answer = ask("Compact", R"({"revision":251,"physical":true})").answer<v1::CompactResponse>();
  EXPECT_EQ(answer.revision(), 251);
  settle();
  EXPECT_GT(test_.last().value, before.value + 2) << "in several steps";
  const auto store = ask("GetStore", "{}").answer<v1::KeyValueStore>();
  EXPECT_EQ(store.compact_revision(), 251);
  EXPECT_LT(store.history_bytes(), 100u);
  EXPECT_EQ(ask("Get", R"({"key":"a","revision":250})").reason(), "REVISION_COMPACTED");
  EXPECT_EQ(ask("Compact", R"({"revision":251})").reason(), "REVISION_COMPACTED");
}

TEST_F(KvServiceTest, TheHashDoesNotDependOnTheSweeping) {
  for (int i = 0; i < 20; ++i) put("k" + std::to_string(i % 3), std::to_string(i));
  const auto hash = [&](const std::string& json) { return ask("HashStore", json).answer<v1::HashStoreResponse>(); };
  ASSERT_EQ(ask("Compact", R"({"revision":10})").reason(), "");
  const auto first = hash(R"({"revision":20})");
  settle();
  EXPECT_EQ(hash(R"({"revision":20})").hash(), first.hash());
  EXPECT_EQ(first.compact_revision(), 10);
  EXPECT_NE(hash(R"({"revision":19})").hash(), first.hash());
  put("k0", "x");
  EXPECT_EQ(hash(R"({"revision":20})").hash(), first.hash());
}

TEST_F(KvServiceTest, TheHistoryOfAKeyIsShown) {
  put("flags/a", "off");
  put("flags/a", "on");
  ask("Delete", R"({"key":"flags/a"})");
  put("flags/a", "new");
  const auto all = ask("GetHistory", R"({"key":"flags/a"})").answer<v1::GetHistoryResponse>();
  ASSERT_EQ(all.versions_size(), 4);
  EXPECT_EQ(all.versions(0).pair().value(), "new");
  EXPECT_TRUE(all.versions(1).deleted());
  EXPECT_EQ(all.versions(1).revision(), 4);
  EXPECT_EQ(all.versions(3).pair().value(), "off");
  const auto page =
      ask("GetHistory", R"({"key":"flags/a","limit":1,"beforeRevision":4})").answer<v1::GetHistoryResponse>();
  ASSERT_EQ(page.versions_size(), 1);
  EXPECT_EQ(page.versions(0).pair().value(), "on");
  EXPECT_TRUE(page.more());
  ASSERT_EQ(ask("Compact", R"({"revision":4,"physical":true})").reason(), "");
  EXPECT_EQ(ask("GetHistory", R"({"key":"flags/a"})").answer<v1::GetHistoryResponse>().versions_size(), 1);
  EXPECT_EQ(ask("GetHistory", R"({"key":"flags/b"})").reason(), "KEY_NOT_FOUND");
}

TEST_F(KvServiceTest, TwoRevisionsAreComparedAndRolledBack) {
  put("app/a", "1");
  put("app/b", "1");
  put("app/c", "1");
  put("other", "1");  // 5
  put("app/a", "2");
  put("app/b", "1");  // the same again
  ask("Delete", R"({"key":"app/c"})");
  put("app/d", "1");
  put("other", "2");  // 10
  const auto diff = ask("Diff", R"({"prefix":"app/","fromRevision":5})").answer<v1::DiffResponse>();
  std::string text;
  for (const auto& d : diff.differences()) {
    text += d.key() + ":" + d.before().value() + ">" + d.after().value() + " ";
  }
  EXPECT_EQ(text, "app/a:1>2 app/c:1> app/d:>1 ");
  EXPECT_EQ(diff.differences(1).kind(), v1::KEY_DIFFERENCE_KIND_REMOVED);
  const auto cut = ask("Diff", R"({"prefix":"app/","fromRevision":5,"limit":1})").answer<v1::DiffResponse>();
  EXPECT_EQ(cut.next_key(), "app/c");
  EXPECT_TRUE(cut.more());
  EXPECT_EQ(ask("Rollback", R"({"revision":5})").reason(), "RANGE_INVALID");
  const std::string back = R"({"prefix":"app/","revision":5)";
  const auto preview = ask("Rollback", back + R"(,"validateOnly":true})").answer<v1::RollbackResponse>();
  EXPECT_EQ(preview.restored(), 2);
  EXPECT_EQ(preview.deleted(), 1);
  EXPECT_EQ(preview.revision(), 10);
  const auto done = ask("Rollback", back + "}").answer<v1::RollbackResponse>();
  EXPECT_EQ(done.restored(), 2);
  EXPECT_EQ(done.revision(), 11);
  EXPECT_EQ(ask("Diff", R"({"prefix":"app/","fromRevision":5})").answer<v1::DiffResponse>().differences_size(), 0);
  EXPECT_EQ(ask("Get", R"({"key":"other"})").answer<v1::KeyValuePair>().value(), "2");
  EXPECT_EQ(ask("Rollback", back + "}").answer<v1::RollbackResponse>().revision(), 11) << "nothing is left to change";
}

TEST_F(KvServiceTest, LeasesEndWithTheirKeys) {
  const auto lease = ask("GrantLease", R"({"ttl":"10s","id":"77"})").answer<v1::KeyLease>();
  EXPECT_EQ(lease.id(), 77);
  EXPECT_EQ(ask("GrantLease", R"({"ttl":"10s","id":"77"})").reason(), "LEASE_EXISTS");
  put("a", "1", R"(,"lease":"77")");
  const auto shown = ask("GetLease", R"({"id":"77","keys":true})").answer<v1::KeyLease>();
  EXPECT_EQ(shown.keys(0), "a");
  EXPECT_LE(shown.remaining().seconds(), 10);
  EXPECT_GE(shown.remaining().seconds(), 9);
  for (int i = 0; i < 4; ++i) {
    test_.scheduler.run_for_ms(6'000);
    EXPECT_EQ(ask("KeepLeaseAlive", R"({"id":"77"})").answer<v1::KeyLease>().remaining().seconds(), 10);
  }
  EXPECT_EQ(ask("Get", R"({"key":"a"})").reason(), "");
  test_.scheduler.run_for_ms(11'000);
  EXPECT_EQ(ask("Get", R"({"key":"a"})").reason(), "KEY_NOT_FOUND");
  EXPECT_EQ(ask("KeepLeaseAlive", R"({"id":"77"})").reason(), "LEASE_NOT_FOUND");
  EXPECT_EQ(ask("GetLease", R"({"id":"77"})").reason(), "LEASE_NOT_FOUND");
}

TEST_F(KvServiceTest, LeasesAreListedRevokedAndCounted) {
  for (const char* id : {"1", "2", "3"}) {
    ASSERT_EQ(ask("GrantLease", std::string(R"({"ttl":"60s","id":")") + id + "\"}").reason(), "");
  }
  EXPECT_EQ(ask("GrantLease", R"({"ttl":"60s"})").reason(), "LEASES_EXHAUSTED");
  const auto page = ask("ListLeases", R"({"pageSize":2})").answer<v1::ListLeasesResponse>();
  ASSERT_EQ(page.leases_size(), 2);
  EXPECT_EQ(page.leases(1).id(), 2);
  const auto rest = ask("ListLeases", R"({"pageSize":2,"pageToken":")" + page.next_page_token() + "\"}")
                        .answer<v1::ListLeasesResponse>();
  ASSERT_EQ(rest.leases_size(), 1);
  EXPECT_EQ(rest.leases(0).id(), 3);
  put("a", "1", R"(,"lease":"2")");
  EXPECT_EQ(ask("RevokeLease", R"({"id":"2"})").answer<v1::RevokeLeaseResponse>().deleted(), 1);
  EXPECT_EQ(ask("Get", R"({"key":"a"})").reason(), "KEY_NOT_FOUND");
  EXPECT_EQ(ask("RevokeLease", R"({"id":"2"})").reason(), "LEASE_NOT_FOUND");
}

TEST_F(KvServiceTest, AWatchSeesThePastAndThenWhatHappens) {
  put("a", "1");
  put("b", "1");
  ask("Delete", R"({"key":"a"})");
  const auto all = begin("Watch", R"({"startRevision":1,"prevKv":true})");
  const auto one = begin("Watch", R"({"key":"a"})");
  const auto prefix = begin("Watch", R"({"prefix":"a","startRevision":2,"noDelete":true})");
  settle();
  EXPECT_EQ(events(all), "+a=1@2 +b=1@3 -a<1@4");
  EXPECT_EQ(events(one), "");
  EXPECT_TRUE(items(one)[0].created());
  EXPECT_EQ(items(one)[0].revision(), 4);
  EXPECT_EQ(events(prefix), "+a=1@2");
  put("a", "2");
  put("b", "2");
  put("ab", "3");
  settle();
  EXPECT_EQ(events(all), "+a=1@2 +b=1@3 -a<1@4 +a=2@5 +b=2<1@6 +ab=3@7");
  EXPECT_EQ(events(one), "+a=2@5");
  EXPECT_EQ(events(prefix), "+a=1@2 +a=2@5 +ab=3@7");
}

TEST_F(KvServiceTest, AWatchGoesOnFromItsCursor) {
  const auto first = begin("Watch", "{}");
  settle();
  put("a", "1");
  put("a", "2");
  settle();
  const std::string cursor = items(first).back().cursor();
  first.call->deliver_cancel();
  put("a", "3");
  const auto second = begin("Watch", R"({"since":")" + cursor + "\"}");
  settle();
  EXPECT_EQ(events(first), "+a=1@2 +a=2@3");
  EXPECT_EQ(events(second), "+a=3@4");
  EXPECT_EQ(begin("Watch", R"({"since":"x"})").reason(), "CURSOR_INVALID");
}

TEST_F(KvServiceTest, AWatchMayBeginInTheFuture) {
  const auto watch = begin("Watch", R"({"startRevision":4})");
  settle();
  put("a", "1");
  put("a", "2");
  put("a", "3");
  settle();
  EXPECT_EQ(events(watch), "+a=3@4");
}

TEST_F(KvServiceTest, AWatchOfWhatIsCompactedSaysFromWhereOnItMayBegin) {
  for (int i = 0; i < 5; ++i) put("a", std::to_string(i));
  ASSERT_EQ(ask("Compact", R"({"revision":4,"physical":true})").reason(), "");
  const auto late = begin("Watch", R"({"startRevision":3})");
  const auto in_time = begin("Watch", R"({"startRevision":4,"prevKv":true})");
  settle();
  EXPECT_EQ(late.reason(), "REVISION_COMPACTED");
  EXPECT_EQ(items(late).back().compact_revision(), 4);
  EXPECT_EQ(items(late).back().end().reason(), v1::STREAM_END_REASON_COMPACTED);
  EXPECT_EQ(events(in_time), "+a=2@4 +a=3<2@5 +a=4<3@6") << "the version before the compaction is gone";
}

TEST_F(KvServiceTest, ASlowWatchLosesNothing) {
  const auto watch = begin("Watch", R"({"prefix":"a"})");
  settle();
  watch.sink->queued = kWatchQueueBytesMax + 1;
  for (int i = 0; i < 50; ++i) put("a" + std::to_string(i), "1");
  settle();
  EXPECT_EQ(events(watch), "") << "it waits for the client";
  watch.sink->queued = 0;
  settle();
  put("a", "last");
  settle();
  const std::string seen = events(watch);
  EXPECT_EQ(std::ranges::count(seen, '+'), 51);
  EXPECT_TRUE(seen.ends_with("+a49=1@51 +a=last@52")) << seen;
}

TEST_F(KvServiceTest, ALargeRevisionIsCutIntoFragments) {
  for (int i = 0; i < 40; ++i) put("k" + std::to_string(i), std::string(3'000, 'x'));
  for (int i = 0; i < 40; ++i) {
    for (int round = 0; round < 12; ++round) put("f" + std::to_string(i * 12 + round), std::string(3'000, 'y'));
  }
  const auto live = begin("Watch", R"({"prevKv":true})");
  settle();
  ASSERT_EQ(ask("Delete", R"({"key":"a","rangeEnd":"z"})").answer<v1::DeleteResponse>().deleted(), 520);
  settle();
  const auto past = begin("Watch", R"({"prevKv":true,"startRevision":522})");
  settle();
  for (const Exchange& watch : {live, past}) {
    size_t count = 0, fragments = 0;
    for (const auto& item : items(watch)) {
      count += static_cast<size_t>(item.events_size());
      fragments += item.fragment() ? 1 : 0;
      EXPECT_LT(item.ByteSizeLong(), 2u << 20);
      if (item.events_size() > 0) EXPECT_EQ(item.revision(), 522);
    }
    EXPECT_EQ(count, 520u);
    EXPECT_GE(fragments, 1u);
    EXPECT_FALSE(items(watch).back().fragment());
  }
  EXPECT_EQ(events(live), events(past));
  // A fragment is a place to go on from.
  const auto first = items(past)[1];
  ASSERT_TRUE(first.fragment());
  const auto rest = begin("Watch", R"({"prevKv":true,"since":")" + first.cursor() + "\"}");
  settle();
  int left = 0;
  for (const auto& item : items(rest)) left += item.events_size();
  EXPECT_EQ(first.events_size() + left, 520);
}

TEST_F(KvServiceTest, AnIdleWatchTellsItsProgress) {
  const auto watch = begin("Watch", R"({"key":"a","progressInterval":"1s"})");
  settle();
  put("b", "1");
  test_.scheduler.run_for_ms(1'500);
  const auto seen = items(watch);
  ASSERT_EQ(seen.size(), 2u);
  EXPECT_EQ(seen[1].revision(), 2);
  EXPECT_EQ(seen[1].events_size(), 0);
  EXPECT_EQ(seen[1].cursor(), "3");
}

TEST_F(KvServiceTest, WatchesTellHowFarTheyAreWhenTheyAreProbed) {
  const auto watch = begin("Watch", R"({"key":"a"})");
  settle();
  const std::string id = std::to_string(items(watch)[0].watch_id());
  put("b", "1");
  const auto answer = ask("ProbeWatches", R"({"watchIds":[)" + id + "]}").answer<v1::ProbeWatchesResponse>();
  settle();
  EXPECT_EQ(answer.revision(), 2);
  ASSERT_EQ(items(watch).size(), 2u);
  EXPECT_EQ(items(watch)[1].revision(), 2);
  EXPECT_EQ(ask("ProbeWatches", R"({"watchIds":[999]})").reason(), "WATCH_NOT_FOUND");
}

TEST_F(KvServiceTest, WatchesEndWhenTheNodeStops) {
  const auto watch = begin("Watch", "{}");
  settle();
  test_.node.end_watches();
  settle();
  EXPECT_EQ(items(watch).back().end().reason(), v1::STREAM_END_REASON_RECONNECT);
  EXPECT_TRUE(watch.done());
}

}  // namespace
}  // namespace uccp::kv
