#include "services/locks/locks_service.h"

#include <gtest/gtest.h>

#include "services/coordination_test_node.h"

namespace uccp::locks {
namespace {

using coordination::Exchange;
using coordination::TestNode;

class LocksServiceTest : public ::testing::Test {
 protected:
  LocksServiceTest() {
    n_.start();
    service_.add_handlers(n_.handlers);
  }
  Exchange acquire(std::string owner, std::string name, std::string more = "", TestNode::Client client = {}) {
    return n_.begin("AcquireLock",
                    R"({"name":")" + name + R"(","owner":")" + owner + "\"" + (more.empty() ? "" : "," + more) + "}",
                    std::move(client));
  }
  v1::Lock held(const Exchange& x) {
    EXPECT_TRUE(n_.wait([&] { return x.done(); }));
    return x.answer<v1::Lock>();
  }
  std::string fails(const Exchange& x) {
    EXPECT_TRUE(n_.wait([&] { return x.done(); }));
    return x.reason();
  }
  Exchange release(const v1::Lock& lock) {
    return n_.ask("ReleaseLock", R"({"name":")" + lock.name() + R"(","leaseId":")" + lock.lease_id() + "\"}");
  }
  v1::Lock get(std::string name) { return n_.ask("GetLock", "{\"name\":\"" + name + "\"}").answer<v1::Lock>(); }
  std::string statistic(std::string name) {
    const auto s = n_.ask("GetLockStatistics", "{\"name\":\"" + name + "\"}").answer<v1::LockStatistics>();
    return std::to_string(s.acquisitions()) + "," + std::to_string(s.contended()) + "," +
           std::to_string(s.wait_timeouts()) + "," + std::to_string(s.expirations()) + "," +
           std::to_string(s.deadlocks());
  }
  static std::string events(const Exchange& x) {
    std::string out;
    for (const std::string& message : x.sink->messages) {
      v1::LockEvent event;
      EXPECT_TRUE(event.ParseFromString(message));
      EXPECT_TRUE(event.lock().lease_id().empty());
      out += event.has_end() ? "END" : v1::LockEventKind_Name(event.kind()).substr(16);
      out += event.has_lock() ? " " + event.lock().name() + " " + event.lock().owner() + "\n" : "\n";
    }
    return out;
  }

  LocksState state_;
  TestNode n_{{&state_}};
  LocksService service_{{n_.node, n_.node, n_.node, n_.node, n_.work, n_.clock, n_.service_random, n_.metrics,
                         n_.signer, [](const call::Principal& p, std::string_view) { return p.name == "alice"; }}};
};

TEST_F(LocksServiceTest, AHoldIsAnsweredWithItsProofAndAnotherCallWaitsForTheRelease) {
  const v1::Lock a = held(acquire("a", "x/y", R"("ttl":"60s","metadata":{"why":"test"})"));
  EXPECT_EQ(a.owner(), "a");
  EXPECT_EQ(a.type(), v1::LOCK_TYPE_EXCLUSIVE);
  EXPECT_EQ(a.expire_time().seconds() - a.acquired_at().seconds(), 60);
  EXPECT_EQ(a.metadata().at("why"), "test");
  EXPECT_EQ(a.principal(), "alice");
  Exchange b = acquire("b", "x/y");
  n_.scheduler.run_for_ms(20'000);
  EXPECT_FALSE(b.done());
  const v1::Lock seen = get("x/y");
  EXPECT_EQ(seen.owner(), "a");
  EXPECT_TRUE(seen.lease_id().empty());
  EXPECT_FALSE(seen.has_renewed_at());
  ASSERT_EQ(seen.wait_queue_size(), 1);
  EXPECT_EQ(seen.wait_queue(0).owner(), "b");
  EXPECT_EQ(n_.metrics.value("uccp_locks_held"), 1);
  EXPECT_EQ(n_.metrics.value("uccp_lock_waiters"), 1);
  EXPECT_EQ(release(a).reason(), "");
  const v1::Lock granted = held(b);
  EXPECT_GT(granted.fencing_token(), a.fencing_token());
  EXPECT_NE(granted.lease_id(), a.lease_id());
  EXPECT_EQ(granted.waited().seconds(), 20);
  EXPECT_EQ(release(a).reason(), "LEASE_EXPIRED");
  EXPECT_EQ(release(granted).reason(), "");
  EXPECT_EQ(n_.ask("GetLock", R"({"name":"x/y"})").reason(), "LOCK_NOT_FOUND");
  EXPECT_EQ(statistic("x/y"), "2,1,0,0,0");
  EXPECT_EQ(n_.ask("GetLockStatistics", R"({"name":"none"})").reason(), "LOCK_NOT_FOUND");
}

TEST_F(LocksServiceTest, AWaitEndsByItsTimeOrByTheDeadline) {
  const v1::Lock a = held(acquire("a", "l", R"("ttl":"3600s")"));
  EXPECT_EQ(fails(acquire("b", "l", R"("waitTimeout":"0s")")), "LOCK_WAIT_TIMEOUT");
  const int64_t begun = n_.scheduler.now_us();
  const Exchange timed = acquire("b", "l", R"("waitTimeout":"2s")");
  EXPECT_EQ(fails(timed), "LOCK_WAIT_TIMEOUT");
  EXPECT_EQ(timed.sink->status.code(), Code::kDeadline);
  EXPECT_NEAR(static_cast<double>(n_.scheduler.now_us() - begun), 2e6, 2e4);
  // Without a time of its own it is answered just before the deadline.
  EXPECT_EQ(fails(acquire("b", "l", "", {.deadline_ms = 5000})), "LOCK_WAIT_TIMEOUT");
  EXPECT_LT(n_.scheduler.now_us() - begun, 7'000'000);
  EXPECT_EQ(get("l").waiters(), 0);
  EXPECT_EQ(n_.ask("TryLock", R"({"name":"l"})").reason(), "LOCK_HELD");
}

TEST_F(LocksServiceTest, AHoldEndsByItsTtlUnlessItIsRenewed) {
  const v1::Lock a = held(acquire("a", "l", R"("ttl":"3s")"));
  const std::string renew = R"({"name":"l","leaseId":")" + a.lease_id() + "\"";
  n_.scheduler.run_for_ms(200);
  const LogIndex before = n_.last();
  for (int i = 0; i < 5; ++i) {
    n_.scheduler.run_for_ms(2000);
    const auto renewed = n_.ask("RenewLock", renew + "}").answer<v1::Lock>();
    EXPECT_EQ(renewed.fencing_token(), a.fencing_token());
  }
  EXPECT_EQ(n_.last(), before) << "renewals are no log entries";
  const v1::Lock seen = get("l");
  EXPECT_TRUE(seen.has_renewed_at());
  EXPECT_EQ(seen.expire_time().seconds() - seen.renewed_at().seconds(), 3);
  EXPECT_EQ(n_.ask("RenewLock", renew + R"(,"ttl":"10s"})").answer<v1::Lock>().ttl().seconds(), 10);
  n_.scheduler.run_for_ms(9000);
  Exchange b = acquire("b", "l");
  n_.scheduler.run_for_ms(500);
  EXPECT_FALSE(b.done());
  n_.scheduler.run_for_ms(1500);
  EXPECT_GT(held(b).fencing_token(), a.fencing_token());
  EXPECT_EQ(n_.ask("RenewLock", renew + "}").reason(), "LEASE_EXPIRED");
  EXPECT_EQ(n_.ask("RenewLock", R"({"name":"l","leaseId":"nonsense"})").reason(), "LEASE_ID_INVALID");
  EXPECT_EQ(statistic("l"), "2,1,0,1,0");
}

TEST_F(LocksServiceTest, ARepeatIsNotAnsweredWithAHoldThatHasEnded) {
  const v1::Lock a = held(acquire("a", "l", R"("ttl":"2s")", {.request_id = "r1"}));
  EXPECT_EQ(held(acquire("a", "l", R"("ttl":"2s")", {.request_id = "r1"})).lease_id(), a.lease_id());
  n_.scheduler.run_for_ms(5000);
  EXPECT_EQ(fails(acquire("a", "l", R"("ttl":"2s")", {.request_id = "r1"})), "HOLD_ENDED");
  const v1::Lock b = held(acquire("b", "l"));
  EXPECT_EQ(fails(acquire("a", "l", R"("ttl":"2s")", {.request_id = "r1"})), "HOLD_ENDED");
  release(b);
  // A hold that grew or was renewed meanwhile is answered as it is now.
  const v1::Lock c = held(acquire("c", "m", R"("reentrant":true)", {.request_id = "r2"}));
  held(acquire("c", "m", R"("reentrant":true)"));
  EXPECT_EQ(held(acquire("c", "m", R"("reentrant":true)", {.request_id = "r2"})).hold_count(), 2);
  release(c);
  release(c);
  EXPECT_EQ(fails(acquire("c", "m", R"("reentrant":true)", {.request_id = "r2"})), "HOLD_ENDED");
}

TEST_F(LocksServiceTest, AFencingTokenIsGoodAsLongAsItsHold) {
  const auto check = [&](uint64_t token) {
    return n_.ask("CheckFencingToken", R"({"name":"l","fencingToken":)" + std::to_string(token) + "}");
  };
  EXPECT_EQ(check(7).reason(), "FENCING_TOKEN_STALE");
  const v1::Lock a = held(acquire("a", "l", R"("ttl":"2s")"));
  EXPECT_EQ(check(a.fencing_token()).answer<v1::FencingCheck>().owner(), "a");
  EXPECT_EQ(check(a.fencing_token() + 1).reason(), "FENCING_TOKEN_STALE");
  const v1::Lock b = held(acquire("b", "l"));
  EXPECT_EQ(check(a.fencing_token()).reason(), "FENCING_TOKEN_STALE") << "it expired";
  EXPECT_EQ(check(b.fencing_token()).answer<v1::FencingCheck>().owner(), "b");
}

TEST_F(LocksServiceTest, ATreeKeepsOthersFromTheNamesBelow) {
  const v1::Lock tree = held(acquire("t", "a", R"("tree":true)"));
  EXPECT_TRUE(tree.tree());
  const Exchange tried = n_.ask("TryLock", R"({"name":"a/b","owner":"x"})");
  EXPECT_EQ(tried.reason(), "LOCK_HELD");
  EXPECT_NE(tried.sink->status.message().find("t, under a name above"), std::string::npos);
  const Exchange below = acquire("b", "a/b");
  n_.scheduler.run_for_ms(500);
  EXPECT_FALSE(below.done());
  release(tree);
  EXPECT_EQ(held(below).owner(), "b");
}

TEST_F(LocksServiceTest, ARepeatWithTheRequestIdKeepsThePlaceInTheQueue) {
  const v1::Lock a = held(acquire("a", "l"));
  Exchange first = acquire("b", "l", "", {.request_id = "r1"});
  n_.scheduler.run_for_ms(100);
  Exchange other = acquire("c", "l");
  n_.scheduler.run_for_ms(100);
  // The connection breaks; the client asks again by another one and is still first.
  first.call->deliver_cancel();
  EXPECT_EQ(first.sink->status.code(), Code::kCancelled);
  n_.scheduler.run_for_ms(5000);
  Exchange again = acquire("b", "l", "", {.request_id = "r1", .address = "10.0.0.1:2"});
  n_.scheduler.run_for_ms(20'000);
  EXPECT_EQ(get("l").waiters(), 2);
  release(a);
  const v1::Lock b = held(again);
  EXPECT_FALSE(other.done());
  // Granted meanwhile: the same hold once more. Over: told so.
  EXPECT_EQ(held(acquire("b", "l", "", {.request_id = "r1"})).lease_id(), b.lease_id());
  release(b);
  EXPECT_EQ(fails(acquire("b", "l", "", {.request_id = "r1"})), "HOLD_ENDED");
  EXPECT_EQ(held(other).owner(), "c");
}

TEST_F(LocksServiceTest, AClientThatGoesAwayLeavesTheQueue) {
  const v1::Lock a = held(acquire("a", "l"));
  Exchange b = acquire("b", "l");
  Exchange c = acquire("c", "l", "", {.request_id = "r"});
  n_.scheduler.run_for_ms(100);
  EXPECT_EQ(get("l").waiters(), 2);
  b.call->deliver_cancel();
  n_.scheduler.run_for_ms(100);
  EXPECT_EQ(get("l").waiters(), 1);
  // With a request id it may come back, but not forever.
  c.call->deliver_cancel();
  n_.scheduler.run_for_ms(coordination::kWaiterTtlMs + 1000);
  EXPECT_EQ(get("l").waiters(), 0);
}

TEST_F(LocksServiceTest, AClientThatIsGoneWhenItsTurnComesHoldsNothing) {
  const v1::Lock a = held(acquire("a", "l"));
  Exchange b = acquire("b", "l");
  Exchange c = acquire("c", "l");
  n_.scheduler.run_for_ms(100);
  Exchange released = n_.begin("ReleaseLock", R"({"name":"l","leaseId":")" + a.lease_id() + "\"}");
  b.call->deliver_cancel();
  EXPECT_EQ(held(c).owner(), "c");
}

TEST_F(LocksServiceTest, ReadersShareAndReentrantOwnersCount) {
  const v1::Lock r1 = n_.ask("AcquireReadLock", R"({"name":"d","owner":"r1"})").answer<v1::Lock>();
  const v1::Lock r2 = held(acquire("r2", "d", R"("type":"SHARED")"));
  EXPECT_EQ(r2.type(), v1::LOCK_TYPE_SHARED);
  EXPECT_EQ(get("d").holders_size(), 2);
  EXPECT_EQ(get("d").owner(), "r1");
  EXPECT_EQ(n_.ask("TransferLock", R"({"name":"d","newOwner":"x","leaseId":")" + r1.lease_id() + "\"}").reason(),
            "LOCK_SHARED");
  const v1::Lock one = held(acquire("a", "e", R"("reentrant":true)"));
  const v1::Lock two = held(acquire("a", "e", R"("reentrant":true)"));
  EXPECT_EQ(two.hold_count(), 2);
  EXPECT_EQ(two.lease_id(), one.lease_id());
  release(two);
  EXPECT_EQ(get("e").hold_count(), 1);
}

TEST_F(LocksServiceTest, TwoClientsWithTheSameCredentialsAreTwoOwners) {
  const auto lock =
      n_.ask("AcquireLock", R"({"name":"l","reentrant":true})", {.address = "10.0.0.1:5"}).answer<v1::Lock>();
  EXPECT_EQ(lock.owner(), "alice@10.0.0.1:5");
  EXPECT_EQ(n_.ask("TryLock", R"({"name":"l","reentrant":true})", {.address = "10.0.0.1:6"}).reason(), "LOCK_HELD");
  EXPECT_EQ(n_.ask("TryLock", R"({"name":"l"})", {.name_space = "m"}).answer<v1::Lock>().namespace_(), "m");
}

TEST_F(LocksServiceTest, AWaitThatWouldNeverEndIsRefusedAndCounted) {
  held(acquire("a", "one"));
  const v1::Lock two = held(acquire("b", "two"));
  Exchange waits = acquire("a", "two");
  n_.scheduler.run_for_ms(10);
  const Exchange refused = acquire("b", "one");
  EXPECT_EQ(fails(refused), "DEADLOCK");
  EXPECT_EQ(refused.sink->status.code(), Code::kConflict);
  release(two);
  EXPECT_EQ(held(waits).owner(), "a");
  EXPECT_EQ(statistic("one"), "1,0,0,0,1");
}

TEST_F(LocksServiceTest, HandedOverTakenAwayAndBroken) {
  const v1::Lock a = held(acquire("a", "l", R"("priority":1)"));
  const v1::Lock b =
      n_.ask("TransferLock", R"({"name":"l","newOwner":"b","leaseId":")" + a.lease_id() + "\"}").answer<v1::Lock>();
  EXPECT_EQ(b.owner(), "b");
  EXPECT_GT(b.fencing_token(), a.fencing_token());
  EXPECT_EQ(release(a).reason(), "LEASE_EXPIRED");
  EXPECT_EQ(fails(acquire("c", "l", R"("priority":9,"preempt":true)", {.principal = "bob"})), "PERMISSION_DENIED");
  const v1::Lock c = held(acquire("c", "l", R"("priority":9,"preempt":true)"));
  EXPECT_EQ(release(b).reason(), "LEASE_EXPIRED");
  EXPECT_EQ(n_.ask("BreakLock", R"({"name":"l","fencingToken":)" + std::to_string(b.fencing_token()) + "}").reason(),
            "FENCING_TOKEN_STALE");
  const auto broken = n_.ask("BreakLock", R"({"name":"l"})").answer<v1::BreakLockResponse>();
  ASSERT_EQ(broken.broken_size(), 1);
  EXPECT_EQ(broken.broken(0).fencing_token(), c.fencing_token());
  EXPECT_EQ(n_.ask("BreakLock", R"({"name":"l"})").reason(), "LOCK_NOT_FOUND");
}

TEST_F(LocksServiceTest, ListsWhatIsUsed) {
  held(acquire("a", "jobs/2", R"("ttl":"60s")"));
  const v1::Lock gone = held(acquire("b", "jobs/1"));
  held(acquire("c", "jobs/3"));
  held(acquire("d", "other"));
  n_.ask("AcquireLock", R"({"name":"jobs/0"})", {.name_space = "m"});
  release(gone);
  const auto list = [&](std::string json, std::string name_space = "n") {
    const Exchange x = n_.ask("ListLocks", json, {.name_space = name_space});
    if (!x.reason().empty()) return x.reason();
    std::string out;
    for (const auto& lock : x.answer<v1::ListLocksResponse>().locks()) out += lock.name() + " ";
    return out;
  };
  EXPECT_EQ(list("{}"), "jobs/2 jobs/3 other ");
  EXPECT_EQ(list(R"({"prefix":"jobs/"})"), "jobs/2 jobs/3 ");
  EXPECT_EQ(list(R"({"filter":"owner = d"})"), "other ");
  EXPECT_EQ(list(R"({"orderBy":"name desc","pageSize":2})"), "other jobs/3 ");
  EXPECT_EQ(list(R"({"filter":"nope = 1"})"), "FILTER_INVALID");
  EXPECT_EQ(list(R"({"namespace":"-"})", "-"), "jobs/0 jobs/2 jobs/3 other ");
  const auto first = n_.ask("ListLocks", R"({"pageSize":2})").answer<v1::ListLocksResponse>();
  EXPECT_EQ(list(R"({"pageSize":2,"pageToken":")" + first.next_page_token() + "\"}"), "other ");
}

TEST_F(LocksServiceTest, AWatchBeginsWithTheHoldersAndMissesNothing) {
  const v1::Lock a = held(acquire("a", "w/1"));
  Exchange watch = n_.begin("WatchLocks", R"({"prefix":"w/"})", {.deadline_ms = 0});
  n_.scheduler.run_for_ms(10);
  EXPECT_EQ(events(watch), "ACQUIRED w/1 a\nSYNCED\n");
  Exchange b = acquire("b", "w/1", R"("ttl":"1s")");
  n_.scheduler.run_for_ms(10);
  held(acquire("x", "other"));
  release(a);
  n_.scheduler.run_for_ms(3000);
  EXPECT_EQ(events(watch), "ACQUIRED w/1 a\nSYNCED\nRELEASED w/1 a\nACQUIRED w/1 b\nEXPIRED w/1 b\n");
  // From every cursor on: also between the two changes of one command.
  for (size_t seen = 2; seen <= 5; ++seen) {
    v1::LockEvent event;
    ASSERT_TRUE(event.ParseFromString(watch.sink->messages[seen - 1]));
    Exchange resumed =
        n_.begin("WatchLocks", R"({"prefix":"w/","since":")" + event.cursor() + "\"}", {.deadline_ms = 0});
    n_.scheduler.run_for_ms(10);
    ASSERT_EQ(resumed.sink->messages.size(), 5 - seen) << seen;
    for (size_t i = seen; i < 5; ++i) EXPECT_EQ(resumed.sink->messages[i - seen], watch.sink->messages[i]);
    resumed.call->deliver_cancel();
  }
  EXPECT_EQ(n_.begin("WatchLocks", R"({"since":"1.x"})").reason(), "CURSOR_INVALID");
  watch.call->deliver_cancel();
  EXPECT_EQ(watch.sink->status.code(), Code::kCancelled);
}

TEST_F(LocksServiceTest, SemaphoresGiveOutTheirPermits) {
  const auto take = [&](std::string rest) { return n_.ask("AcquireSemaphore", R"({"name":"s",)" + rest + "}"); };
  EXPECT_EQ(take(R"("permits":1)").reason(), "CAPACITY_REQUIRED");
  const auto a = take(R"("capacity":3,"permits":2)").answer<v1::SemaphoreLease>();
  EXPECT_EQ(a.available(), 1);
  EXPECT_EQ(a.capacity(), 3);
  EXPECT_EQ(take(R"("capacity":4)").reason(), "CAPACITY_MISMATCH");
  EXPECT_EQ(take(R"("permits":4)").reason(), "PERMITS_EXCEED_CAPACITY");
  EXPECT_EQ(take(R"("permits":2,"waitTimeout":"1s")").reason(), "LOCK_WAIT_TIMEOUT");
  Exchange waits = n_.begin("AcquireSemaphore", R"({"name":"s","permits":2})");
  n_.scheduler.run_for_ms(10);
  auto shown = n_.ask("GetSemaphore", R"({"name":"s"})").answer<v1::Semaphore>();
  EXPECT_EQ(shown.available(), 1);
  EXPECT_EQ(shown.waiters(), 1);
  EXPECT_EQ(n_.ask("ListSemaphores", "{}").answer<v1::ListSemaphoresResponse>().semaphores_size(), 1);
  const std::string proof = R"({"name":"s","leaseId":")" + a.lease_id() + "\"}";
  EXPECT_EQ(n_.ask("RenewSemaphore", proof).answer<v1::SemaphoreLease>().lease_id(), a.lease_id());
  EXPECT_EQ(n_.metrics.value("uccp_semaphore_permits_held"), 2);
  n_.ask("ReleaseSemaphore", proof);
  ASSERT_TRUE(n_.wait([&] { return waits.done(); }));
  const auto b = waits.answer<v1::SemaphoreLease>();
  EXPECT_GT(b.fencing_token(), a.fencing_token());
  EXPECT_EQ(n_.ask("ReleaseSemaphore", R"({"name":"s","leaseId":")" + b.lease_id() + "\"}")
                .answer<v1::ReleaseSemaphoreResponse>()
                .available(),
            3);
  EXPECT_EQ(n_.ask("GetSemaphore", R"({"name":"s"})").reason(), "SEMAPHORE_NOT_FOUND");
  EXPECT_EQ(n_.ask("ReleaseSemaphore", proof).reason(), "LEASE_EXPIRED");
}

TEST_F(LocksServiceTest, WaitsEndWhenTheNodeStopsAndTheirPlaceStays) {
  held(acquire("a", "l"));
  Exchange b = acquire("b", "l", "", {.request_id = "r"});
  n_.scheduler.run_for_ms(100);
  n_.node.end_watches();
  EXPECT_EQ(fails(b), "WAIT_INTERRUPTED");
  EXPECT_EQ(b.sink->status.code(), Code::kUnavailable);
}

// 64 contenders hand one lock around; each hold is released as soon as it is answered.
TEST_F(LocksServiceTest, ALockGoesAroundAmongManyInTheOrderOfTheirComing) {
  std::vector<Exchange> waiting;
  for (int i = 0; i < 64; ++i) {
    waiting.push_back(acquire("o" + std::to_string(i), "hot", R"("ttl":"600s")"));
    n_.scheduler.run_for_ms(1);
  }
  uint64_t token = 0;
  for (int i = 0; i < 64; ++i) {
    const v1::Lock lock = held(waiting[static_cast<size_t>(i)]);
    EXPECT_EQ(lock.owner(), "o" + std::to_string(i));
    EXPECT_GT(lock.fencing_token(), token);
    token = lock.fencing_token();
    release(lock);
  }
  EXPECT_EQ(statistic("hot"), "64,63,0,0,0");
}

}  // namespace
}  // namespace uccp::locks
