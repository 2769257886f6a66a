#include "services/audit/audit_service.h"

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "call/json_codec.h"
#include "machine/machine.h"
#include "machine/table.h"
#include "sim/sim_executor.h"
#include "storage/memory/memory_kv.h"

namespace uccp::audit {
namespace {

using machine::Envelope;

class Nothing final : public machine::Domain {
 public:
  std::string_view name() const override { return "nothing"; }
  std::map<std::string, machine::ApplyFunction, std::less<>> commands() override {
    return {{"do", [](machine::ApplyContext&, std::string_view) -> machine::ApplyResult { return ""; }},
            {"refuse", [](machine::ApplyContext&, std::string_view) -> machine::ApplyResult {
               return fail(Code::kConflict, "REFUSED", "no");
             }}};
  }
  void on_lease_expired(machine::ApplyContext&, machine::LeaseId, std::string_view) override {}
};

struct Group {
  explicit Group(GroupId id) : id(id), machine(id, kv, {&domain}) { EXPECT_TRUE(machine.open().is_ok()); }
  void apply(int64_t second, std::string principal, std::string method, std::string command = "nothing.do",
             machine::Scope scope = {"t", "n"}) {
    Envelope e;
    e.scope = std::move(scope);
    e.principal = std::move(principal);
    e.method = std::move(method);
    e.command = std::move(command);
    e.resource = "r";
    e.audited = true;
    e.wall = WallTime{second * 1'000'000};
    const Entry entry{Term(1), machine.applied().next(), EntryKind::kCommand, encode_envelope(e)};
    EXPECT_TRUE(machine.apply({&entry, 1}).has_value());
  }
  // Changes a byte of a stored record.
  void tamper(uint64_t number) {
    const std::string key =
        machine::group_prefix(id) + machine::table_key::make(machine::kAuditTable, {}, ByteWriter().u64(number).data());
    std::string value = **kv.view()->get(key);
    value[20] ^= 1;
    storage::KvBatch batch;
    batch.put(key, value);
    EXPECT_TRUE(kv.write(batch).is_ok());
  }
  machine::GroupView view() { return {id, kv.view(), machine.applied(), 0}; }

  GroupId id;
  storage::MemoryKv kv;
  Nothing domain;
  machine::Machine machine;
};

class AuditServiceTest : public ::testing::Test, machine::Reader {
 protected:
  AuditServiceTest() { service_.add_handlers(handlers_); }

  void read(GroupId group, const machine::ReadLevel&, Done done) override {
    done(group == kCoreGroup ? core_.view() : work_.view());
  }

  struct Collector final : call::Sink {
    void send(std::string m) override { message = std::move(m); }
    void finish(Status s) override { status = std::move(s); }
    size_t queued_bytes() const override { return 0; }
    std::string message;
    Status status;
  };
  template <typename Response>
  Result<Response> ask(std::string_view rpc, std::string_view json) {
    auto call = std::make_shared<call::Call>();
    auto sink = std::make_shared<Collector>();
    call->method = call::Contract::get().find("uccp.v1.Administration/" + std::string(rpc));
    call->sink = sink;
    call->principal = principal_;
    auto request = call::json_to_wire(*call->method->request, json);
    EXPECT_TRUE(request.has_value());
    (*handlers_.find(call->method))(call, std::move(*request));
    scheduler_.run_until_idle();
    if (!sink->status.is_ok()) return std::unexpected(sink->status);
    Response response;
    EXPECT_TRUE(response.ParseFromString(sink->message));
    return response;
  }
  // "work-2 core-1": the ids found, over all pages.
  std::string search(std::string_view fields = "") {
    std::string ids, token;
    do {
      std::string json = "{" + std::string(fields);
      if (!token.empty()) json += std::string(fields.empty() ? "" : ",") + "\"pageToken\":\"" + token + "\"";
      auto page = ask<v1::SearchAuditResponse>("SearchAudit", json + "}");
      if (!page) return std::string(page.error().reason());
      for (const auto& record : page->records()) ids.append(ids.empty() ? "" : " ").append(record.id());
      token = page->next_page_token();
    } while (!token.empty());
    return ids;
  }

  Group core_{kCoreGroup}, work_{kWorkGroup};
  sim::SimScheduler scheduler_;
  sim::SimClock clock_{scheduler_.time()};
  sim::SimExecutor executor_{scheduler_};
  call::PageTokenSigner signer_{"key"};
  call::Principal principal_{.kind = call::Principal::Kind::kUser, .tenant = "t", .name = "alice", .roles = {"admin"}};
  call::HandlerTable handlers_;
  AuditService service_{{.reader = *this, .work = executor_, .clock = clock_, .page_tokens = signer_}};
};

TEST_F(AuditServiceTest, MergesTheTrailsNewestFirstAndPagesThroughThem) {
  EXPECT_EQ(search(), "");
  for (int i = 0; i < 4; ++i) {
    core_.apply(100 + i * 10, "alice", "uccp.v1.ServiceDiscovery/Register");
    work_.apply(105 + i * 10, "bob", "uccp.v1.TaskScheduling/ScheduleTask");
  }
  const std::string all = "work-3 core-3 work-2 core-2 work-1 core-1 work-0 core-0";
  EXPECT_EQ(search(), all);
  EXPECT_EQ(search("\"pageSize\":1"), all);
  EXPECT_EQ(search("\"pageSize\":3"), all);
}

TEST_F(AuditServiceTest, ReadsBackThroughMoreThanOneChunk) {
  for (int i = 0; i < 700; ++i) core_.apply(i, "alice", "uccp.v1.ServiceDiscovery/Register");
  auto page = ask<v1::SearchAuditResponse>("SearchAudit", R"({"pageSize":1000,"countTotal":true})");
  ASSERT_TRUE(page);
  ASSERT_EQ(page->records_size(), 700);
  for (int i = 0; i < 700; ++i) EXPECT_EQ(page->records(i).number(), 699u - static_cast<unsigned>(i));
  EXPECT_EQ(page->total_size(), 700);
}

TEST_F(AuditServiceTest, NarrowsByTimePrincipalMethodAndFilter) {
  core_.apply(1000, "alice", "uccp.v1.ServiceDiscovery/Register");
  core_.apply(5000, "bob", "uccp.v1.ServiceDiscovery/Register", "nothing.refuse");
  work_.apply(9000, "alice", "uccp.v1.TaskScheduling/ScheduleTask");
  EXPECT_EQ(search(R"("principal":"bob")"), "core-1");
  EXPECT_EQ(search(R"("method":"ScheduleTask")"), "work-0");
  EXPECT_EQ(search(R"("method":"ServiceDiscovery/Register")"), "core-1 core-0");
  EXPECT_EQ(search(R"("method":"egister")"), "");
  EXPECT_EQ(search(R"("filter":"outcome != \"ok\"")"), "core-1");
  EXPECT_EQ(search(R"("startTime":"1970-01-01T01:23:20Z")"), "work-0 core-1");  // 5000 s
  EXPECT_EQ(search(R"("endTime":"1970-01-01T01:23:20Z")"), "core-0");
  EXPECT_EQ(search(R"("filter":"nothing = 1")"), "FILTER_INVALID");
}

TEST_F(AuditServiceTest, ShowsOnlyTheTenantAndNamespacesOfTheCaller) {
  core_.apply(1, "alice", "m");
  core_.apply(2, "mallory", "m", "nothing.do", {"other", "n"});
  core_.apply(3, "alice", "m", "nothing.do", {"t", "secret"});
  EXPECT_EQ(search(), "core-2 core-0");
  principal_.namespaces = {"n"};
  EXPECT_EQ(search(), "core-0");
}

TEST_F(AuditServiceTest, VerifyNamesTheFirstBrokenRecord) {
  for (int i = 0; i < 3; ++i) work_.apply(i, "alice", "m");
  auto good = ask<v1::VerifyAuditResponse>("VerifyAudit", "{}");
  ASSERT_TRUE(good);
  EXPECT_TRUE(good->intact());
  ASSERT_EQ(good->trails_size(), 2);
  EXPECT_EQ(good->trails(0).records(), 0u);
  EXPECT_EQ(good->trails(1).records(), 3u);
  EXPECT_EQ(good->trails(1).last_record(), 2u);
  EXPECT_EQ(good->trails(1).head_hash().size(), 64u);
  work_.tamper(1);
  auto broken = ask<v1::VerifyAuditResponse>("VerifyAudit", "{}");
  ASSERT_TRUE(broken);
  EXPECT_FALSE(broken->intact());
  EXPECT_TRUE(broken->trails(0).intact());
  EXPECT_EQ(broken->trails(1).broken_record(), "work-1");
  EXPECT_NE(broken->trails(1).reason(), "");
}

}  // namespace
}  // namespace uccp::audit
