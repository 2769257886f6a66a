#include "services/quotas/quotas_state.h"

#include <gtest/gtest.h>

#include "machine/machine.h"
#include "services/quota_use_types.h"
#include "services/quotas/quotas_service.h"
#include "storage/memory/memory_kv.h"

namespace uccp::quotas {
namespace {

using v1::ResourceQuota;

class QuotasStateTest : public ::testing::Test {
 protected:
  QuotasStateTest() : machine_(kWorkGroup, kv_, {&quotas_}) { EXPECT_TRUE(machine_.open().is_ok()); }

  Result<std::string> apply(const std::string& name, const std::string& payload, const std::string& tenant = "t") {
    machine::Envelope e;
    e.principal = "admin";
    e.scope = {tenant, "default"};
    e.command = name;
    e.payload = payload;
    e.boot = {++boot_ms_ * 1000};
    e.wall = {1'000'000 + boot_ms_ * 1000};
    const Entry entry{Term(1), machine_.applied().next(), EntryKind::kCommand, machine::encode_envelope(e)};
    auto batch = machine_.apply({&entry, 1});
    EXPECT_TRUE(batch && machine_.verify_digest().is_ok());
    return batch->results[0].result;
  }
  // "" or the reason of the refusal.
  std::string set(const ResourceQuota& quota, const std::string& if_match = {}, bool validate_only = false) {
    v1::SetQuotaRequest request;
    *request.mutable_quota() = quota;
    request.set_if_match(if_match);
    request.set_validate_only(validate_only);
    const auto applied = apply("quotas.set", request.SerializeAsString());
    if (!applied) return std::string(applied.error().reason());
    EXPECT_TRUE(answered_.ParseFromString(*applied));
    return "";
  }
  std::string remove(v1::QuotaScope scope, const std::string& subject) {
    v1::DeleteQuotaRequest request;
    request.set_namespace_("default");
    request.set_scope(scope);
    request.set_subject(subject);
    const auto applied = apply("quotas.delete", request.SerializeAsString());
    return applied ? "" : std::string(applied.error().reason());
  }
  static ResourceQuota quota(v1::QuotaScope scope, const std::string& subject, double cpu,
                             const std::string& parent = {}) {
    ResourceQuota quota;
    quota.set_namespace_("default");
    quota.set_scope(scope);
    quota.set_subject(subject);
    quota.set_parent(parent);
    if (cpu >= 0) quota.mutable_hard()->set_cpu(cpu);
    return quota;
  }

  storage::MemoryKv kv_;
  QuotasState quotas_;
  machine::Machine machine_;
  ResourceQuota answered_;
  int64_t boot_ms_ = 0;
};

TEST_F(QuotasStateTest, AQuotaIsKeptWithItsEtag) {
  EXPECT_EQ(set(quota(v1::QUOTA_SCOPE_NAMESPACE, "", 4)), "");
  const std::string first = answered_.etag();
  EXPECT_EQ(set(quota(v1::QUOTA_SCOPE_NAMESPACE, "", 5), "0"), "ETAG_MISMATCH");
  EXPECT_EQ(set(quota(v1::QUOTA_SCOPE_NAMESPACE, "", 5), first), "");
  EXPECT_NE(answered_.etag(), first);
  EXPECT_EQ(set(quota(v1::QUOTA_SCOPE_NAMESPACE, "", 6), "", true), "");
  const auto stored = work::kQuotas.get(machine_.view(), work::quota_scope("t"), "namespace:default");
  ASSERT_TRUE(stored);
  EXPECT_EQ(stored->hard().cpu(), 5) << "what is only checked is not kept";
  EXPECT_EQ(remove(v1::QUOTA_SCOPE_NAMESPACE, ""), "");
  EXPECT_EQ(remove(v1::QUOTA_SCOPE_NAMESPACE, ""), "QUOTA_NOT_FOUND");
}

TEST_F(QuotasStateTest, ParentsExistAndFormNoCycle) {
  EXPECT_EQ(set(quota(v1::QUOTA_SCOPE_TEAM, "a", -1, "team:none")), "QUOTA_PARENT_NOT_FOUND");
  EXPECT_EQ(set(quota(v1::QUOTA_SCOPE_TEAM, "a", -1)), "");
  EXPECT_EQ(set(quota(v1::QUOTA_SCOPE_TEAM, "b", -1, "team:a")), "");
  EXPECT_EQ(set(quota(v1::QUOTA_SCOPE_TEAM, "c", -1, "team:b")), "");
  EXPECT_EQ(set(quota(v1::QUOTA_SCOPE_TEAM, "a", -1, "team:c")), "QUOTA_CYCLE");
  EXPECT_EQ(set(quota(v1::QUOTA_SCOPE_TEAM, "a", -1, "team:a")), "QUOTA_CYCLE");
  EXPECT_EQ(remove(v1::QUOTA_SCOPE_TEAM, "b"), "QUOTA_IN_USE");
  EXPECT_EQ(remove(v1::QUOTA_SCOPE_TEAM, "c"), "");
  EXPECT_EQ(remove(v1::QUOTA_SCOPE_TEAM, "b"), "");
}

TEST_F(QuotasStateTest, ChildrenFitIntoTheirParentUnlessItAllowsMore) {
  ResourceQuota all = quota(v1::QUOTA_SCOPE_GLOBAL, "", 10);
  EXPECT_EQ(set(all), "");
  EXPECT_EQ(set(quota(v1::QUOTA_SCOPE_TEAM, "a", 11)), "QUOTA_EXCEEDS_PARENT");
  EXPECT_EQ(set(quota(v1::QUOTA_SCOPE_TEAM, "a", 6)), "");
  EXPECT_EQ(set(quota(v1::QUOTA_SCOPE_TEAM, "b", 6)), "QUOTA_EXCEEDS_PARENT");
  ResourceQuota borrows = quota(v1::QUOTA_SCOPE_TEAM, "b", 10);
  borrows.mutable_soft()->set_cpu(4);
  EXPECT_EQ(set(borrows), "") << "four of its own and the rest borrowed";
  EXPECT_EQ(set(quota(v1::QUOTA_SCOPE_TEAM, "a", 6)), "") << "itself is not its sibling";
  all.set_overcommit(true);
  EXPECT_EQ(set(all), "");
  EXPECT_EQ(set(quota(v1::QUOTA_SCOPE_TEAM, "c", 9)), "");
}

TEST_F(QuotasStateTest, ATemplateHasToBeThereWhileItIsUsed) {
  ResourceQuota user = quota(v1::QUOTA_SCOPE_USER, "alice", -1);
  user.set_template_("small");
  EXPECT_EQ(set(user), "QUOTA_TEMPLATE_NOT_FOUND");
  EXPECT_EQ(set(quota(v1::QUOTA_SCOPE_TEMPLATE, "small", 1)), "");
  EXPECT_EQ(set(user), "");
  EXPECT_EQ(remove(v1::QUOTA_SCOPE_TEMPLATE, "small"), "QUOTA_IN_USE");
}

TEST(CheckQuota, WhatIsNotEnforcedOrMakesNoSenseIsRefused) {
  const auto reason = [](const std::function<void(ResourceQuota&)>& change) {
    ResourceQuota quota;
    quota.set_namespace_("default");
    change(quota);
    return std::string(check_quota(quota).reason());
  };
  EXPECT_EQ(reason([](auto& q) { q.mutable_hard()->set_cpu(1); }), "");
  EXPECT_EQ(reason([](auto& q) { q.mutable_hard()->set_gpu_hours(1); }), "");
  EXPECT_EQ(reason([](auto& q) { q.mutable_soft()->set_gpu_hours(1); }), "FIELD_INVALID");
  EXPECT_EQ(reason([](auto& q) { q.mutable_lend()->set_cost(1); }), "FIELD_INVALID");
  EXPECT_EQ(reason([](auto& q) { q.mutable_soft()->set_locks(1); }), "QUOTA_LIMIT_UNIMPLEMENTED");
  EXPECT_EQ(reason([](auto& q) { q.set_burst_factor(2); }), "");
  EXPECT_EQ(reason([](auto& q) { q.mutable_burst_duration()->set_seconds(60); }), "FIELD_INVALID");
  EXPECT_EQ(reason([](auto& q) { q.set_scope(v1::QUOTA_SCOPE_USER); }), "FIELD_INVALID");
  EXPECT_EQ(reason([](auto& q) { q.set_subject("x"); }), "FIELD_INVALID");
  EXPECT_EQ(reason([](auto& q) {
              q.mutable_hard()->set_cpu(1);
              q.mutable_soft()->set_cpu(2);
            }),
            "FIELD_INVALID");
  EXPECT_EQ(reason([](auto& q) { q.mutable_lend()->set_cpu(2); }), "FIELD_INVALID");
}

TEST_F(QuotasStateTest, CallsAreSummedByDayWithWhatEachNodeTakes) {
  const auto count = [&](const std::string& node, const std::string& day, uint64_t calls, int64_t passed_ms = 1) {
    internal::v1::CountRequestsCommand command;
    command.set_node(node);
    internal::v1::CountedRequests& one = *command.add_counts();
    one.set_day(day);
    one.set_quota("namespace:n");
    one.set_calls(calls);
    one.set_rate_milli(calls * 1000);
    boot_ms_ += passed_ms;
    EXPECT_TRUE(apply("quotas.count_requests", command.SerializeAsString()).has_value());
  };
  const auto use = [&](const std::string& day) {
    return work::kRequestUse.get(machine_.view(), work::quota_scope("t"), work::request_use_key(day, "namespace:n"));
  };
  count("n1", "2026-12-30", 5);
  count("n2", "2026-12-31", 7);
  EXPECT_FALSE(use("2026-12-30")) << "the day before is over";
  count("n1", "2026-12-31", 3);
  count("n1", "2026-12-31", 4);
  EXPECT_EQ(use("2026-12-31")->calls(), 14u);
  ASSERT_EQ(use("2026-12-31")->nodes_size(), 2);
  EXPECT_EQ(use("2026-12-31")->nodes(1).node(), "n1");
  EXPECT_EQ(use("2026-12-31")->nodes(1).rate_milli(), 4000u) << "the newest report of a node counts";
  count("n1", "2026-12-31", 1, work::kRequestRateMs + 10);
  EXPECT_EQ(use("2026-12-31")->nodes_size(), 1) << "n2 has said nothing for long";
  EXPECT_EQ(use("2026-12-31")->calls(), 15u);
}

TEST(CheckQuota, WhatIsKeptForUrgentTasksIsAPartOfAHardLimit) {
  ResourceQuota quota;
  quota.mutable_hard()->set_cpu(4);
  quota.mutable_reserve()->set_min_priority(80);
  const auto refused = [&] { return std::string(check_quota(quota).message()); };
  EXPECT_NE(refused().find("quota.reserve.amounts names nothing"), std::string::npos) << refused();
  quota.mutable_reserve()->mutable_amounts()->set_cpu(5);
  EXPECT_NE(refused().find("quota.reserve.amounts.cpu is more than the hard limit"), std::string::npos) << refused();
  quota.mutable_reserve()->mutable_amounts()->set_cpu(1);
  EXPECT_TRUE(check_quota(quota).is_ok());
  quota.mutable_reserve()->mutable_amounts()->set_memory(1);
  EXPECT_NE(refused().find("quota.reserve.amounts.memory needs a hard limit"), std::string::npos) << refused();
  quota.mutable_reserve()->mutable_amounts()->clear_memory();
  quota.mutable_reserve()->mutable_amounts()->set_topics(1);
  EXPECT_NE(refused().find("quota.reserve.amounts.topics is not of what runs"), std::string::npos) << refused();
}

TEST(CheckQuota, TopicsAreNotCountedByUser) {
  ResourceQuota quota;
  quota.set_scope(v1::QUOTA_SCOPE_USER);
  quota.set_subject("alice");
  quota.mutable_hard()->set_topics(4);
  EXPECT_NE(check_quota(quota).message().find("set it for the namespace"), std::string::npos);
  quota.mutable_hard()->clear_topics();
  quota.mutable_hard()->set_requests_per_day(4);
  EXPECT_TRUE(check_quota(quota).is_ok());
  quota.mutable_soft()->set_requests_per_day(4);
  EXPECT_NE(check_quota(quota).message().find("requestsPerDay is not borrowed"), std::string::npos);
}

}  // namespace
}  // namespace uccp::quotas
