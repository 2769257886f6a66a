#include "services/sync/sync_service.h"

#include <gtest/gtest.h>

#include "services/coordination_test_node.h"

namespace uccp::sync {
namespace {

using coordination::Exchange;
using coordination::TestNode;

class SyncServiceTest : public ::testing::Test {
 protected:
  SyncServiceTest() {
    n_.start();
    service_.add_handlers(n_.handlers);
  }
  Exchange come(std::string who, int parties, std::string more = "", TestNode::Client client = {}) {
    Exchange x =
        n_.begin("WaitBarrier",
                 R"({"name":"b","participant":")" + who + R"(","parties":)" + std::to_string(parties) + more + "}",
                 std::move(client));
    n_.scheduler.run_for_ms(20);
    return x;
  }
  v1::Barrier barrier() { return n_.ask("GetBarrier", R"({"name":"b"})").answer<v1::Barrier>(); }
  Exchange latch(std::string rpc, std::string rest) { return n_.begin(rpc, R"({"name":"l")" + rest + "}"); }
  Exchange latch_now(std::string rpc, std::string rest) { return n_.ask(rpc, R"({"name":"l")" + rest + "}"); }

  SyncState state_;
  TestNode n_{{&state_}};
  SyncService service_{{n_.node, n_.node, n_.node, n_.node, n_.work, n_.clock}};
};

TEST_F(SyncServiceTest, ABarrierOpensForAllWhenTheLastOneComesAndIsCyclic) {
  for (uint64_t generation = 0; generation < 3; ++generation) {
    Exchange a = come("a", 3), b = come("b", 3);
    n_.scheduler.run_for_ms(20'000);
    EXPECT_FALSE(a.done() || b.done());
    EXPECT_EQ(barrier().arrived(), 2);
    EXPECT_EQ(barrier().participants(0), "a");
    EXPECT_EQ(barrier().generation(), generation);
    Exchange c = come("c", 3);
    int place = 0;
    for (const Exchange& x : {a, b, c}) {
      const auto passage = x.answer<v1::BarrierPassage>();
      EXPECT_EQ(passage.generation(), generation);
      EXPECT_EQ(passage.arrival_index(), place++);
      EXPECT_EQ(passage.parties(), 3);
    }
    EXPECT_EQ(barrier().arrived(), 0);
  }
  EXPECT_EQ(n_.ask("GetBarrier", R"({"name":"none"})").reason(), "BARRIER_NOT_FOUND");
}

TEST_F(SyncServiceTest, AParticipantCountsOnceAndARepeatAttaches) {
  Exchange a = come("a", 2, "", {.request_id = "r"});
  Exchange twice = come("a", 2);
  EXPECT_EQ(barrier().arrived(), 1);
  a.call->deliver_cancel();
  Exchange again = come("a", 2, "", {.request_id = "r"});
  EXPECT_FALSE(again.done());
  EXPECT_EQ(come("x", 5).reason(), "PARTIES_MISMATCH");
  come("b", 2);
  EXPECT_EQ(twice.answer<v1::BarrierPassage>().arrival_index(), 0);
  EXPECT_EQ(again.answer<v1::BarrierPassage>().arrival_index(), 0);
  EXPECT_EQ(come("a", 2, "", {.request_id = "r"}).answer<v1::BarrierPassage>().generation(), 0u);
}

TEST_F(SyncServiceTest, WhoGivesUpNoLongerCountsAndWhoIsLostBreaksIt) {
  Exchange a = come("a", 2, R"(,"waitTimeout":"1s")");
  n_.scheduler.run_for_ms(1500);
  EXPECT_EQ(a.reason(), "BARRIER_WAIT_TIMEOUT");
  EXPECT_EQ(barrier().arrived(), 0);
  Exchange gone = come("g", 2);
  gone.call->deliver_cancel();
  n_.scheduler.run_for_ms(20);
  EXPECT_EQ(barrier().arrived(), 0);
  // With a request id it counts until its lease ends; then the others are told.
  Exchange lost = come("l", 3, "", {.request_id = "r"});
  Exchange b = come("b", 3);
  lost.call->deliver_cancel();
  n_.scheduler.run_for_ms(coordination::kWaiterTtlMs + 1000);
  EXPECT_EQ(b.reason(), "BARRIER_BROKEN");
  EXPECT_EQ(b.sink->status.code(), Code::kConflict);
  Exchange c = come("c", 2);
  EXPECT_EQ(n_.ask("ResetBarrier", R"({"name":"b","generation":77})").reason(), "GENERATION_PASSED");
  EXPECT_EQ(n_.ask("ResetBarrier", R"({"name":"b"})").answer<v1::Barrier>().arrived(), 0);
  n_.scheduler.run_for_ms(20);
  EXPECT_EQ(c.reason(), "BARRIER_BROKEN");
}

TEST_F(SyncServiceTest, ALatchOpensForGoodWhenItIsCountedDown) {
  EXPECT_EQ(latch_now("WaitLatch", "").reason(), "LATCH_NOT_FOUND");
  const auto made = n_.ask("CreateLatch", R"({"latch":{"name":"l","count":3}})").answer<v1::Latch>();
  EXPECT_EQ(made.remaining(), 3);
  EXPECT_EQ(made.ttl().seconds(), 86400);
  EXPECT_EQ(n_.ask("CreateLatch", R"({"latch":{"name":"l","count":3}})").reason(), "LATCH_EXISTS");
  Exchange a = latch("WaitLatch", R"(,"waitTimeout":"20s")"), b = latch("WaitLatch", R"(,"waitTimeout":"1s")");
  n_.scheduler.run_for_ms(2000);
  EXPECT_FALSE(b.answer<v1::Latch>().open());
  EXPECT_EQ(latch_now("CountDownLatch", R"(,"steps":2)").answer<v1::Latch>().remaining(), 1);
  EXPECT_FALSE(a.done());
  EXPECT_TRUE(latch_now("CountDownLatch", "").answer<v1::Latch>().open());
  n_.scheduler.run_for_ms(20);
  EXPECT_TRUE(a.answer<v1::Latch>().open());
  EXPECT_TRUE(latch_now("WaitLatch", R"(,"waitTimeout":"20s")").answer<v1::Latch>().has_open_time());
  EXPECT_TRUE(latch_now("CountDownLatch", "").answer<v1::Latch>().open());
  EXPECT_EQ(latch_now("DeleteLatch", "").reason(), "");
  EXPECT_EQ(latch_now("DeleteLatch", "").reason(), "LATCH_NOT_FOUND");
}

TEST_F(SyncServiceTest, ADeletedOrExpiredLatchEndsTheWaits) {
  n_.ask("CreateLatch", R"({"latch":{"name":"l","count":1,"ttl":"60s"}})");
  Exchange a = latch("WaitLatch", R"(,"waitTimeout":"20s")");
  n_.scheduler.run_for_ms(20);
  latch_now("DeleteLatch", "");
  n_.scheduler.run_for_ms(20);
  EXPECT_EQ(a.reason(), "LATCH_NOT_FOUND");
  n_.ask("CreateLatch", R"({"latch":{"name":"l","count":1,"ttl":"60s"}})");
  n_.scheduler.run_for_ms(61'000);
  EXPECT_EQ(latch_now("WaitLatch", "").reason(), "LATCH_NOT_FOUND");
}

}  // namespace
}  // namespace uccp::sync
