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
    store(number, value);
  }
  std::string key_of(uint64_t number) const {
    return machine::group_prefix(id) +
           machine::table_key::make(machine::kAuditTable, {}, ByteWriter().u64(number).data());
  }
  std::string stored(uint64_t number) { return **kv.view()->get(key_of(number)); }
  void store(uint64_t number, const std::string& value) {
    storage::KvBatch batch;
    batch.put(key_of(number), value);
    EXPECT_TRUE(kv.write(batch).is_ok());
  }
  void remove(uint64_t number) {
    storage::KvBatch batch;
    batch.erase(key_of(number));
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
    done(group == kCoreGroup ? core_.view() : replaced_ != nullptr ? replaced_->view() : work_.view());
  }

  struct ExportSink final : call::Sink {
    void send(std::string m) override {
      queued += m.size();
      EXPECT_TRUE(items.emplace_back().ParseFromString(m));
    }
    void finish(Status s) override {
      status = std::move(s);
      done = true;
    }
    size_t queued_bytes() const override { return queued; }
    std::vector<v1::AuditExport> items;
    Status status;
    size_t queued = 0;
    bool done = false;
  };
  ExportSink& begin_export(const std::string& since) {
    call_ = std::make_shared<call::Call>();
    export_sink_ = std::make_shared<ExportSink>();
    call_->method = call::Contract::get().find("uccp.v1.Administration/ExportAudit");
    call_->sink = export_sink_;
    call_->principal = principal_;
    v1::ExportAuditRequest request;
    request.set_since(since);
    (*handlers_.find(call_->method))(call_, request.SerializeAsString());
    return *export_sink_;
  }
  std::vector<v1::AuditExport> export_from(const std::string& since) {
    ExportSink& sink = begin_export(since);
    scheduler_.run_until_idle();
    EXPECT_TRUE(sink.done && sink.status.is_ok() && !sink.items.empty());
    return sink.items;
  }
  std::string export_error(const std::string& since) {
    ExportSink& sink = begin_export(since);
    scheduler_.run_until_idle();
    return std::string(sink.status.reason());
  }
  static std::string ids_of(const std::vector<v1::AuditExport>& items) {
    std::string ids;
    for (const auto& item : items) {
      if (item.has_record()) ids.append(ids.empty() ? "" : " ").append(item.record().id());
    }
    return ids;
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
  Group* replaced_ = nullptr;
  std::shared_ptr<call::Call> call_;
  std::shared_ptr<ExportSink> export_sink_;
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

TEST_F(AuditServiceTest, VerifyTellsWhatThereIs) {
  for (int i = 0; i < 3; ++i) work_.apply(i, "alice", "m");
  auto good = ask<v1::VerifyAuditResponse>("VerifyAudit", "{}");
  ASSERT_TRUE(good);
  EXPECT_TRUE(good->intact());
  ASSERT_EQ(good->trails_size(), 2);
  EXPECT_EQ(good->trails(0).records(), 0u);
  EXPECT_EQ(good->trails(1).records(), 3u);
  EXPECT_EQ(good->trails(1).last_record(), 2u);
  EXPECT_EQ(good->trails(1).head_hash().size(), 64u);
  EXPECT_EQ(good->trails(1).records_past_anchor(), 3u);
}

TEST_F(AuditServiceTest, VerifyNamesTheFirstRecordThatIsNotWhatWasWritten) {
  for (int i = 0; i < 5; ++i) work_.apply(i, "alice", "m");
  std::vector<std::string> whole;
  for (uint64_t i = 0; i < 5; ++i) whole.push_back(work_.stored(i));
  const auto broken = [&] {
    auto verdict = ask<v1::VerifyAuditResponse>("VerifyAudit", "{}");
    EXPECT_TRUE(verdict);
    EXPECT_TRUE(verdict->trails(0).intact());
    EXPECT_EQ(verdict->intact(), verdict->trails(1).intact());
    EXPECT_EQ(verdict->trails(1).intact(), verdict->trails(1).reason().empty());
    for (uint64_t i = 0; i < 5; ++i) work_.store(i, whole[i]);
    return verdict->trails(1).broken_record();
  };
  EXPECT_EQ(broken(), "");
  for (uint64_t i = 0; i < 5; ++i) {
    const std::string id = "work-" + std::to_string(i);
    work_.tamper(i);
    EXPECT_EQ(broken(), id) << "changed";
    work_.remove(i);
    EXPECT_EQ(broken(), id) << "removed";
  }
  work_.store(1, whole[2]);
  work_.store(2, whole[1]);
  EXPECT_EQ(broken(), "work-1") << "reordered";
  work_.store(3, whole[2]);
  EXPECT_EQ(broken(), "work-3") << "twice";
  for (uint64_t i = 3; i < 5; ++i) work_.remove(i);
  EXPECT_EQ(broken(), "work-3") << "the end is cut";
  for (uint64_t i = 0; i < 2; ++i) work_.remove(i);
  EXPECT_EQ(broken(), "work-0") << "the beginning is cut";
  for (uint64_t i = 0; i < 5; ++i) work_.remove(i);
  EXPECT_EQ(broken(), "work-0") << "all is gone";
  EXPECT_EQ(broken(), "");
}

TEST_F(AuditServiceTest, AnAnchorShowsATrailThatWasMadeAnew) {
  for (int i = 0; i < 3; ++i) work_.apply(i, "alice", "m");
  auto before = ask<v1::VerifyAuditResponse>("VerifyAudit", "{}");
  const std::string anchor = "work-2:" + before->trails(1).head_hash();
  const std::string json = R"({"anchors":[")" + anchor + "\"]}";
  for (int i = 3; i < 5; ++i) work_.apply(i, "alice", "m");
  auto held = ask<v1::VerifyAuditResponse>("VerifyAudit", json);
  ASSERT_TRUE(held);
  EXPECT_TRUE(held->intact());
  EXPECT_EQ(held->trails(1).anchor(), anchor);
  EXPECT_EQ(held->trails(1).records_past_anchor(), 2u);
  // The whole trail is another one, and consistent in itself.
  Group other(kWorkGroup);
  for (int i = 0; i < 5; ++i) other.apply(i, "mallory", "m");
  replaced_ = &other;
  auto forged = ask<v1::VerifyAuditResponse>("VerifyAudit", json);
  ASSERT_TRUE(forged);
  EXPECT_TRUE(ask<v1::VerifyAuditResponse>("VerifyAudit", "{}")->intact());
  EXPECT_FALSE(forged->intact());
  EXPECT_EQ(forged->trails(1).broken_record(), "work-2");
  EXPECT_EQ(forged->trails(1).anchor(), "");
  EXPECT_EQ(forged->trails(1).records_past_anchor(), 5u);
  // And so is one that ends before the anchor.
  Group shorter(kWorkGroup);
  shorter.apply(0, "alice", "m");
  replaced_ = &shorter;
  auto cut = ask<v1::VerifyAuditResponse>("VerifyAudit", json);
  EXPECT_FALSE(cut->intact());
  EXPECT_EQ(cut->trails(1).broken_record(), "work-2");
}

TEST_F(AuditServiceTest, AnAnchorThatIsNoneIsRefused) {
  const std::string hash(64, 'a');
  for (const std::string& anchor : {"other-1:" + hash, "core-99999999999999999999:" + hash}) {
    const auto refused = ask<v1::VerifyAuditResponse>("VerifyAudit", R"({"anchors":[")" + anchor + "\"]}");
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().reason(), "ANCHOR_INVALID") << anchor;
  }
}

TEST_F(AuditServiceTest, AnExportGivesEachTrailOldestFirstAndGoesOnFromItsCursor) {
  for (int i = 0; i < 3; ++i) core_.apply(i, "alice", "m");
  core_.apply(3, "mallory", "m", "nothing.do", {"other", "n"});
  work_.apply(4, "alice", "m");
  const auto items = export_from("");
  EXPECT_EQ(ids_of(items), "core-0 core-1 core-2 work-0");
  const v1::AuditExport& last = items.back();
  EXPECT_EQ(last.end().reason(), v1::STREAM_END_REASON_CAUGHT_UP);
  ASSERT_EQ(last.anchors_size(), 2);
  // The anchors are those that VerifyAudit takes.
  const auto verdict = ask<v1::VerifyAuditResponse>(
      "VerifyAudit", R"({"anchors":[")" + last.anchors(0) + "\",\"" + last.anchors(1) + "\"]}");
  EXPECT_TRUE(verdict->intact());
  EXPECT_EQ(verdict->trails(0).anchor(), last.anchors(0));
  EXPECT_EQ(verdict->trails(0).records_past_anchor(), 0u);
  EXPECT_EQ(ids_of(export_from(items[1].cursor())), "core-2 work-0");
  core_.apply(5, "alice", "m");
  EXPECT_EQ(ids_of(export_from(last.cursor())), "core-4");
  EXPECT_EQ(export_error("nonsense"), "CURSOR_INVALID");
  EXPECT_EQ(export_error("core-1.work-x"), "CURSOR_INVALID");
  EXPECT_EQ(export_error("core-1.work-1.x"), "CURSOR_INVALID");
}

TEST_F(AuditServiceTest, AnExportGoesNoFasterThanItIsTaken) {
  for (int i = 0; i < 2000; ++i) core_.apply(i, std::string(2000, 'p'), "m");
  ExportSink& sink = begin_export("");
  scheduler_.run_until_idle();
  EXPECT_LT(sink.queued, 1'100'000u);
  EXPECT_FALSE(sink.done);
  int rounds = 0;
  for (; !sink.done && rounds < 100; ++rounds) {
    sink.queued = 0;
    call_->deliver_drain();
    scheduler_.run_until_idle();
  }
  EXPECT_GT(rounds, 2);
  EXPECT_EQ(sink.items.size(), 2001u);
}

}  // namespace
}  // namespace uccp::audit
