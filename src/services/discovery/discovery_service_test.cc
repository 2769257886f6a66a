#include "services/discovery/discovery_service.h"

#include <gtest/gtest.h>

#include "services/coordination_test_node.h"
#include "services/discovery/discovery_watch.h"

namespace uccp::discovery {
namespace {

using coordination::Exchange;
using coordination::TestNode;

class DiscoveryServiceTest : public ::testing::Test {
 protected:
  DiscoveryServiceTest() {
    service_.add_handlers(node_.handlers);
    node_.start();
  }

  bool wait(const std::function<bool()>& condition) { return node_.wait(condition); }
  Exchange begin(std::string_view rpc, std::string_view json, std::string request_id = "") {
    return node_.begin("ServiceDiscovery/" + std::string(rpc), json,
                       {.request_id = std::move(request_id), .deadline_ms = 0});
  }
  template <typename Response>
  Result<Response> ask(std::string_view rpc, std::string_view json, std::string request_id = "") {
    Exchange x = begin(rpc, json, std::move(request_id));
    EXPECT_TRUE(wait([&] { return x.sink->done; })) << rpc;
    if (!x.sink->status.is_ok()) return std::unexpected(x.sink->status);
    Response response;
    EXPECT_TRUE(response.ParseFromString(x.sink->messages.at(0)));
    return response;
  }
  Result<v1::ServiceRegistration> add(std::string_view fields, std::string request_id = "") {
    return ask<v1::ServiceRegistration>("Register", "{\"service\":{" + std::string(fields) + "}}",
                                        std::move(request_id));
  }
  Result<v1::ServiceRegistration> add(std::string id, std::string name, int port, std::string more = "") {
    return add("\"id\":\"" + id + "\",\"serviceName\":\"" + name +
               "\",\"address\":\"h\",\"port\":" + std::to_string(port) + (more.empty() ? "" : "," + more));
  }
  // "a,b" or the reason of the error.
  std::string discover(std::string_view json) {
    auto response = ask<v1::DiscoverResponse>("Discover", json);
    if (!response) return std::string(response.error().reason());
    std::string out;
    for (const auto& s : response->services()) out.append(out.empty() ? "" : ",").append(s.id());
    return out;
  }
  // "ADDED a" a line.
  static std::string events(const Exchange& x) {
    std::string out;
    for (const std::string& message : x.sink->messages) {
      v1::ServiceEvent event;
      EXPECT_TRUE(event.ParseFromString(message));
      out += event.has_end() ? "END " + v1::StreamEndReason_Name(event.end().reason()).substr(18)
                             : v1::ServiceEventKind_Name(event.kind()).substr(19);
      out += (event.has_service() ? " " + event.service().id() : "") + "\n";
    }
    return out;
  }
  static std::string last_cursor(const Exchange& x) {
    v1::ServiceEvent event;
    EXPECT_TRUE(event.ParseFromString(x.sink->messages.back()));
    return event.cursor();
  }

  DiscoveryState state_;
  TestNode node_{{&state_}};
  DiscoveryService service_{{.instances_max = 1000},
                            {node_.node, node_.node, node_.node, node_.node, node_.work, node_.clock,
                             node_.service_random, node_.metrics, node_.signer}};
  std::string token_;
};

constexpr std::string_view kWeb = R"("serviceName":"web","address":"10.0.0.1","port":80)";

TEST_F(DiscoveryServiceTest, WhatIsRegisteredIsFoundAtOnce) {
  auto registered = add(kWeb);
  ASSERT_TRUE(registered.has_value());
  EXPECT_TRUE(registered->id().starts_with("svc_"));
  EXPECT_TRUE(registered->healthy());
  EXPECT_EQ(registered->expire_time().seconds() - registered->last_seen().seconds(), 30);
  auto found = ask<v1::DiscoverResponse>("Discover", R"({"name":"web"})");
  ASSERT_EQ(found->services_size(), 1);
  EXPECT_EQ(found->services(0).SerializeAsString(), registered->SerializeAsString());
  EXPECT_EQ(found->revision(), registered->revision());
  auto got = ask<v1::ServiceRegistration>("GetServiceMetadata", "{\"id\":\"" + registered->id() + "\"}");
  EXPECT_EQ(got->address(), "10.0.0.1");
  EXPECT_EQ(ask<v1::ServiceRegistration>("GetServiceMetadata", R"({"id":"nope"})").error().reason(),
            "SERVICE_NOT_FOUND");
  EXPECT_EQ(node_.metrics.value("uccp_services_registered"), 1);
  EXPECT_EQ(node_.metrics.value("uccp_services_healthy"), 1);
}

TEST_F(DiscoveryServiceTest, ARepeatedRequestAnswersTheFirstResultAndAnotherOneConflicts) {
  auto first = add(kWeb, "req-1");
  auto second = add(kWeb, "req-1");
  EXPECT_EQ(first->id(), second->id());
  EXPECT_EQ(first->revision(), second->revision());
  EXPECT_EQ(add(R"("serviceName":"web","address":"10.0.0.1","port":81)", "req-1").error().reason(),
            "REQUEST_ID_REUSED");
}

TEST_F(DiscoveryServiceTest, AnInstanceLivesByItsHeartbeats) {
  ASSERT_TRUE(add("a", "web", 80, R"("ttl":"3s")").has_value());
  for (int i = 0; i < 10; ++i) {
    node_.scheduler.run_for_ms(2000);
    auto beat = ask<v1::HeartbeatResponse>("Heartbeat", R"({"id":"a"})");
    ASSERT_TRUE(beat.has_value()) << beat.error().to_string();
    EXPECT_EQ(beat->ttl().seconds(), 3);
  }
  const LogIndex before = node_.last();
  auto got = ask<v1::ServiceRegistration>("GetServiceMetadata", R"({"id":"a"})");
  EXPECT_LE(node_.clock.wall().us / 1'000'000 - got->last_seen().seconds(), 1);
  EXPECT_EQ(got->expire_time().seconds(), got->last_seen().seconds() + 3);
  // Heartbeats are not log entries.
  EXPECT_EQ(node_.last(), before);
  node_.scheduler.run_for_ms(4000);
  EXPECT_EQ(discover(R"({"name":"web","health":"ANY"})"), "");
  auto late = ask<v1::HeartbeatResponse>("Heartbeat", R"({"id":"a"})");
  EXPECT_EQ(late.error().reason(), "SERVICE_NOT_FOUND");
  EXPECT_NE(late.error().message().find("register again"), std::string::npos);
  EXPECT_TRUE(add("a", "web", 80).has_value());
  EXPECT_EQ(discover(R"({"name":"web"})"), "a");
}

TEST_F(DiscoveryServiceTest, AReportedHealthChangesWhatDiscoverAnswers) {
  ASSERT_TRUE(add("a", "web", 80).has_value());
  ASSERT_TRUE(add("b", "web", 81).has_value());
  ASSERT_TRUE(ask<v1::HeartbeatResponse>("Heartbeat", R"({"id":"a","healthStatus":"UNHEALTHY"})").has_value());
  EXPECT_EQ(discover(R"({"name":"web"})"), "b");
  EXPECT_EQ(discover(R"({"name":"web","health":"ANY"})"), "b,a");
  ASSERT_TRUE(ask<v1::HeartbeatResponse>("Heartbeat", R"({"id":"a","healthStatus":"DEGRADED"})").has_value());
  EXPECT_EQ(discover(R"({"name":"web"})"), "b,a");
  ASSERT_TRUE(ask<v1::HeartbeatResponse>("Heartbeat", R"({"id":"a"})").has_value());
  EXPECT_EQ(discover(R"({"name":"web"})"), "a,b");
}

TEST_F(DiscoveryServiceTest, DiscoverSelectsAndRanks) {
  ASSERT_TRUE(
      add("a", "web", 1, R"("version":"1.4.0","region":"eu","zone":"eu-1","labels":{"tier":"x"},"priority":1)"));
  ASSERT_TRUE(add("b", "web", 2, R"("version":"1.9.0","region":"us","zone":"us-1","capabilities":["pay","void"])"));
  ASSERT_TRUE(add("c", "web", 3, R"("version":"2.0.0","region":"eu","zone":"eu-2","type":"api","protocols":["grpc"])"));
  ASSERT_TRUE(add("d", "web", 4, R"("draining":true)"));
  ASSERT_TRUE(add("e", "db", 5));
  EXPECT_EQ(discover(R"({"name":"web"})"), "b,c,a");
  EXPECT_EQ(discover(R"({"name":"web","health":"ANY"})"), "b,c,d,a");
  EXPECT_EQ(discover(R"({"name":"web","limit":2})"), "b,c");
  EXPECT_EQ(discover(R"({"name":"web","version":">=1.2 <2"})"), "b,a");
  EXPECT_EQ(discover(R"({"name":"web","version":"2.0.0"})"), "c");
  EXPECT_EQ(discover(R"({"name":"web","region":"eu"})"), "c,a");
  EXPECT_EQ(discover(R"({"name":"web","zone":"eu-1"})"), "a");
  EXPECT_EQ(discover(R"-({"name":"web","labels":"tier in (x|y)"})-"), "a");
  EXPECT_EQ(discover(R"({"name":"web","labels":"!tier"})"), "b,c");
  EXPECT_EQ(discover(R"({"name":"web","capabilities":["void","pay"]})"), "b");
  EXPECT_EQ(discover(R"({"name":"web","capabilities":["pay","x"]})"), "");
  EXPECT_EQ(discover(R"({"name":"web","type":"api"})"), "c");
  EXPECT_EQ(discover(R"({"name":"web","protocol":"grpc"})"), "c");
  EXPECT_EQ(discover(R"({"name":"web","nearRegion":"eu"})"), "c,b,a");
  EXPECT_EQ(discover(R"({})"), "e,b,c,a");
  EXPECT_EQ(discover(R"({"name":"none"})"), "");
  EXPECT_EQ(discover(R"({"name":"web","version":"^one"})"), "VERSION_INVALID");
  EXPECT_EQ(discover(R"({"name":"web","labels":"="})"), "SELECTOR_INVALID");
  // Weights shift the random order, priorities still come first.
  const std::string weighted = discover(R"({"name":"web","order":"WEIGHTED"})");
  EXPECT_TRUE(weighted == "b,c,a" || weighted == "c,b,a") << weighted;
}

TEST_F(DiscoveryServiceTest, UpdatesAreMaskedCheckedAndGuardedByTheEtag) {
  auto a = add("a", "web", 80, R"("metadata":{"k":"v"},"region":"eu")");
  const auto update = [&](std::string rest) {
    return ask<v1::ServiceRegistration>(
        "UpdateServiceMetadata",
        R"({"service":{"id":"a","serviceName":"web","address":"h","port":80,"weight":7},)" + rest + "}");
  };
  EXPECT_EQ(update(R"("updateMask":"serviceName")").error().detail().fields.at(0).field, "updateMask");
  EXPECT_EQ(update(R"("updateMask":"etag")").error().reason(), "FIELD_INVALID");
  EXPECT_EQ(update(R"("updateMask":"nothing")").error().reason(), "FIELD_INVALID");
  auto preview = update(R"("updateMask":"weight","validateOnly":true)");
  EXPECT_EQ(preview->weight(), 7);
  auto changed = update(R"("updateMask":"weight,metadata","ifMatch":")" + a->etag() + "\"");
  ASSERT_TRUE(changed.has_value()) << changed.error().to_string();
  EXPECT_EQ(changed->weight(), 7);
  EXPECT_EQ(changed->metadata_size(), 0);
  EXPECT_EQ(changed->region(), "eu");
  EXPECT_NE(changed->etag(), a->etag());
  EXPECT_EQ(update(R"("updateMask":"weight","ifMatch":")" + a->etag() + "\"").error().reason(), "ETAG_MISMATCH");
  EXPECT_EQ(ask<v1::DeregisterResponse>("Deregister", R"({"id":"a","ifMatch":"x"})").error().reason(), "ETAG_MISMATCH");
  EXPECT_TRUE(ask<v1::DeregisterResponse>("Deregister", R"({"id":"a"})").has_value());
}

TEST_F(DiscoveryServiceTest, ListsInTheOrderOfCreationWithFilters) {
  for (const char* id : {"z", "y", "x"}) {
    ASSERT_TRUE(add(id, "web", 80 + id[0]).has_value());
    node_.scheduler.run_for_ms(1);
  }
  ASSERT_TRUE(add("w", "db", 1, R"("labels":{"tier":"data"})").has_value());
  const auto list = [&](std::string json) {
    auto response = ask<v1::ListServicesResponse>("ListServices", json);
    std::string out = response ? "" : std::string(response.error().reason());
    if (response) {
      for (const auto& s : response->services()) out += s.id();
      token_ = response->next_page_token();
    }
    return out;
  };
  EXPECT_EQ(list("{}"), "zyxw");
  EXPECT_EQ(list(R"({"pageSize":3})"), "zyx");
  EXPECT_EQ(list(R"({"pageSize":3,"pageToken":")" + token_ + "\"}"), "w");
  EXPECT_EQ(list(R"({"filter":"serviceName = web AND healthy = true","orderBy":"id"})"), "xyz");
  EXPECT_EQ(list(R"({"filter":"labels.tier = data"})"), "w");
  EXPECT_EQ(list(R"({"orderBy":"lastSeen desc"})"), "wxyz");
  EXPECT_EQ(list(R"({"filter":"sla = 1"})"), "FILTER_INVALID");
}

TEST_F(DiscoveryServiceTest, AWatchBeginsWithWhatIsThereAndMissesNothing) {
  ASSERT_TRUE(add("a", "web", 80).has_value());
  ASSERT_TRUE(add("other", "db", 80).has_value());
  Exchange watch = begin("WatchServices", R"({"name":"web"})");
  ASSERT_TRUE(wait([&] { return watch.sink->messages.size() == 2; }));
  EXPECT_EQ(events(watch), "ADDED a\nSYNCED\n");
  ASSERT_TRUE(add("b", "web", 81, R"("ttl":"2s")").has_value());
  ASSERT_TRUE(add("b", "web", 82, R"("ttl":"2s")").has_value());
  ASSERT_TRUE(ask<v1::DeregisterResponse>("Deregister", R"({"id":"a"})").has_value());
  ASSERT_TRUE(ask<v1::DeregisterResponse>("Deregister", R"({"id":"other"})").has_value());
  node_.scheduler.run_for_ms(3000);
  EXPECT_EQ(events(watch), "ADDED a\nSYNCED\nADDED b\nUPDATED b\nREMOVED a\nEXPIRED b\n");
  watch.call->deliver_cancel();
  EXPECT_EQ(watch.sink->status.code(), Code::kCancelled);
}

TEST_F(DiscoveryServiceTest, AWatchGoesOnFromEveryCursor) {
  Exchange first = begin("WatchServices", "{}");
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(add("s" + std::to_string(i), "web", 80 + i).has_value());
  node_.scheduler.run_for_ms(10);
  ASSERT_EQ(first.sink->messages.size(), 6u);
  for (size_t seen = 1; seen <= 6; ++seen) {
    v1::ServiceEvent event;
    ASSERT_TRUE(event.ParseFromString(first.sink->messages[seen - 1]));
    Exchange resumed = begin("WatchServices", "{\"since\":\"" + event.cursor() + "\"}");
    node_.scheduler.run_for_ms(10);
    ASSERT_EQ(resumed.sink->messages.size(), 6 - seen);
    for (size_t i = seen; i < 6; ++i) EXPECT_EQ(resumed.sink->messages[i - seen], first.sink->messages[i]);
    resumed.call->deliver_cancel();
  }
  EXPECT_EQ(begin("WatchServices", R"({"since":"7.x"})").sink->status.reason(), "CURSOR_INVALID");
  // A cursor of the future is of another cluster: waiting for it would hide changes.
  Exchange future = begin("WatchServices", R"({"since":"1.99999"})");
  ASSERT_TRUE(wait([&] { return future.sink->done; }));
  EXPECT_EQ(events(future), "END COMPACTED\n");
  first.call->deliver_cancel();
}

TEST_F(DiscoveryServiceTest, AWatchWithASelectorReportsWhatLeavesIt) {
  ASSERT_TRUE(add("a", "web", 80, R"("labels":{"tier":"x"})").has_value());
  ASSERT_TRUE(add("b", "web", 81).has_value());
  Exchange watch = begin("WatchServices", R"({"labels":"tier=x"})");
  ASSERT_TRUE(add("a", "web", 80, R"("labels":{"tier":"y"})").has_value());
  ASSERT_TRUE(add("b", "web", 81, R"("labels":{"tier":"x"})").has_value());
  ASSERT_TRUE(add("c", "web", 82).has_value());
  node_.scheduler.run_for_ms(10);
  EXPECT_EQ(events(watch), "ADDED a\nSYNCED\nREMOVED a\nUPDATED b\n");
  watch.call->deliver_cancel();
}

TEST_F(DiscoveryServiceTest, ASlowWatcherIsCutOffWithACursorToGoOnFrom) {
  Exchange watch = begin("WatchServices", "{}");
  ASSERT_TRUE(add("a", "web", 80).has_value());
  node_.scheduler.run_for_ms(10);
  const std::string cursor = last_cursor(watch);
  watch.sink->queued = kWatchQueueBytesMax + 1;
  ASSERT_TRUE(add("b", "web", 81).has_value());
  ASSERT_TRUE(wait([&] { return watch.sink->done; }));
  EXPECT_EQ(watch.sink->status.reason(), "WATCHER_TOO_SLOW");
  EXPECT_EQ(watch.sink->status.code(), Code::kExhausted);
  EXPECT_EQ(events(watch), "SYNCED\nADDED a\nEND TOO_SLOW\n");
  EXPECT_EQ(last_cursor(watch), cursor);
  Exchange resumed = begin("WatchServices", "{\"since\":\"" + cursor + "\"}");
  node_.scheduler.run_for_ms(10);
  EXPECT_EQ(events(resumed), "ADDED b\n");
  resumed.call->deliver_cancel();
}

TEST_F(DiscoveryServiceTest, TheInitialRowsWaitForASlowClient) {
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(add("s" + std::to_string(i), "web", 80 + i).has_value());
  Exchange watch = begin("WatchServices", "{}");
  watch.sink->queued = kInitialQueueBytesMax + 1;
  node_.scheduler.run_for_ms(20'000);
  EXPECT_TRUE(watch.sink->messages.empty());
  watch.sink->queued = 0;
  node_.scheduler.run_for_ms(20);
  EXPECT_EQ(events(watch), "ADDED s0\nADDED s1\nADDED s2\nSYNCED\n");
  watch.call->deliver_cancel();
  Exchange stuck = begin("WatchServices", "{}");
  stuck.sink->queued = kInitialQueueBytesMax + 1;
  node_.scheduler.run_for_ms(kInitialStallMsMax + 1000);
  EXPECT_EQ(stuck.sink->status.reason(), "WATCHER_TOO_SLOW");
}

// What the node's own watcher does when the changes behind a cursor are gone.
class CompactedWatcher final : public machine::Watcher {
 public:
  explicit CompactedWatcher(Executor& executor) : executor_(executor) {}
  std::shared_ptr<machine::Watch> watch(const machine::WatchFilter&, LogIndex, OnChange, OnEnd on_end) override {
    executor_.post([on_end = std::move(on_end)]() mutable {
      on_end(Status(Code::kFailedPrecondition, "CURSOR_COMPACTED", "gone"));
    });
    return std::make_shared<machine::Watch>();
  }

 private:
  Executor& executor_;
};

TEST_F(DiscoveryServiceTest, ACompactedCursorEndsTheStreamSayingSo) {
  CompactedWatcher compacted(node_.watch);
  DiscoveryService service({}, {node_.node, node_.node, compacted, node_.node, node_.work, node_.clock,
                                node_.service_random, node_.metrics, node_.signer});
  node_.handlers = {};
  service.add_handlers(node_.handlers);
  Exchange watch = begin("WatchServices", R"({"since":"1.1"})");
  ASSERT_TRUE(wait([&] { return watch.sink->done; }));
  EXPECT_EQ(events(watch), "END COMPACTED\n");
  EXPECT_EQ(watch.sink->status.code(), Code::kFailedPrecondition);
}

TEST_F(DiscoveryServiceTest, WatchesEndWhenTheNodeStops) {
  Exchange watch = begin("WatchServices", "{}");
  node_.scheduler.run_for_ms(10);
  node_.node.stop([] {});
  ASSERT_TRUE(wait([&] { return watch.sink->done; }));
  EXPECT_EQ(events(watch), "SYNCED\nEND RECONNECT\n");
  EXPECT_EQ(watch.sink->status.code(), Code::kUnavailable);
}

}  // namespace
}  // namespace uccp::discovery
