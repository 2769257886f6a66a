// A node of one in virtual time for tests of the coordination services: calls as a client makes them, without doors.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "call/contract.h"
#include "call/handler.h"
#include "call/json_codec.h"
#include "call/listing.h"
#include "node/node.h"
#include "sim/sim_clock.h"
#include "sim/sim_executor.h"
#include "storage/memory/memory_kv.h"
#include "storage/memory/memory_log_store.h"

namespace uccp::coordination {

class Collector final : public call::Sink {
 public:
  void send(std::string message) override { messages.push_back(std::move(message)); }
  void finish(Status s) override {
    EXPECT_FALSE(done);
    done = true;
    status = std::move(s);
  }
  size_t queued_bytes() const override { return queued; }

  std::vector<std::string> messages;
  Status status;
  bool done = false;
  size_t queued = 0;
};

struct Exchange {
  std::shared_ptr<call::Call> call;
  std::shared_ptr<Collector> sink;

  bool done() const { return sink->done; }
  // The reason of the error, empty if there is none.
  std::string reason() const { return sink->status.is_ok() ? "" : std::string(sink->status.reason()); }
  template <typename Response>
  Response answer() const {
    Response response;
    EXPECT_TRUE(sink->done && sink->status.is_ok()) << sink->status.to_string();
    if (!sink->messages.empty()) {
      EXPECT_TRUE(response.ParseFromString(sink->messages[0]));
    }
    return response;
  }
};

class TestNode {
 public:
  explicit TestNode(std::vector<machine::Domain*> domains)
      : node({},
             {.loop = loop,
              .io = io,
              .watch = watch,
              .clock = clock,
              .random = random_,
              .log = log_,
              .kv = kv_,
              .metrics = metrics,
              .fatal = [](Status s) { ADD_FAILURE() << s.to_string(); }},
             {{kCoreGroup, "core", std::move(domains)}}) {}
  ~TestNode() {
    bool stopped = false;
    node.stop([&] { stopped = true; });
    EXPECT_TRUE(wait([&] { return stopped; }));
    scheduler.run_for_ms(100);
  }
  void start() {
    EXPECT_TRUE(node.open({NodeId(1)}).is_ok());
    node.start();
    EXPECT_TRUE(wait([&] { return node.ready(); }));
  }
  bool wait(const std::function<bool()>& condition) {
    return scheduler.run_until(condition, scheduler.now_us() + 120'000'000);
  }
  LogIndex last() const { return node.status().at(kCoreGroup).group.last; }

  struct Client {
    std::string request_id;
    std::string address = "10.0.0.1:1";
    int64_t deadline_ms = 30'000;
    std::string principal = "alice";
    std::string name_space = "n";
  };
  Exchange begin(std::string_view rpc, std::string_view json, Client client) {
    Exchange x{std::make_shared<call::Call>(), std::make_shared<Collector>()};
    // A method of another service comes with the service's name.
    const std::string service = rpc.find('/') == std::string_view::npos ? "Coordination/" : "";
    x.call->method = call::Contract::get().find("uccp.v1." + service + std::string(rpc));
    x.call->sink = x.sink;
    x.call->principal = {
        .kind = call::Principal::Kind::kUser, .tenant = "t", .name = client.principal, .roles = {"admin"}};
    x.call->name_space = client.name_space;
    x.call->request_id = client.request_id;
    x.call->credentials.address = client.address;
    x.call->read_level = machine::ReadLevel::linearizable();
    if (client.deadline_ms > 0) x.call->deadline = clock.boot().plus_ms(client.deadline_ms);
    auto request = call::json_to_wire(*x.call->method->request, json);
    EXPECT_TRUE(request.has_value()) << (request ? "" : request.error().to_string());
    (*handlers.find(x.call->method))(x.call, std::move(*request));
    return x;
  }
  Exchange begin(std::string_view rpc, std::string_view json) { return begin(rpc, json, Client()); }
  // A call that is answered at once.
  Exchange ask(std::string_view rpc, std::string_view json, Client client) {
    Exchange x = begin(rpc, json, std::move(client));
    EXPECT_TRUE(wait([&] { return x.done(); })) << rpc;
    return x;
  }
  Exchange ask(std::string_view rpc, std::string_view json) { return ask(rpc, json, Client()); }

  sim::SimScheduler scheduler;
  sim::SimClock clock{scheduler.time()};
  sim::SimExecutor loop{scheduler}, io{scheduler}, watch{scheduler}, work{scheduler};
  SeededRandom service_random{2};
  MetricsRegistry metrics;
  call::PageTokenSigner signer{"key"};
  call::HandlerTable handlers;

 private:
  SeededRandom random_{1};
  storage::MemoryLogStore log_;
  storage::MemoryKv kv_;

 public:
  node::Node node;
};

}  // namespace uccp::coordination
