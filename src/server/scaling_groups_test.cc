#include "server/scaling_groups.h"

#include <gtest/gtest.h>

namespace uccp::server {
namespace {

std::string refused(const std::string& json) {
  const auto out = parse_scaling_groups("groups.json", json, 100);
  return out ? "taken" : std::string(out.error().message());
}

TEST(ScalingGroups, AGroupBecomesFlagsAndAnInventory) {
  const auto out = parse_scaling_groups("groups.json", R"({"groups": [{
    "name": "gpu", "min": 1, "max": 3, "agentFlags": ["--cache", "1Gi"],
    "worker": {"pool": "ml", "type": "HIGH_MEMORY", "labels": {"rack": "7"}, "pricePerHour": 2.5,
               "taints": [{"key": "team", "value": "ml", "effect": "NO_EXECUTE"}],
               "gpus": [{"type": "nvidia-h100", "count": 2, "memory": "80Gi"}],
               "resources": {"total": {"cpu": 4, "memory": "8Gi"}}}}]})",
                                        50);
  ASSERT_TRUE(out) << out.error().message();
  const tasks::ScalingGroup& group = out->groups.at(0);
  EXPECT_EQ(group.min, 1u);
  EXPECT_EQ(group.max, 3u);
  EXPECT_EQ(group.price_per_hour, 2.5);
  EXPECT_EQ(group.worker.capacity.cpu_milli, 4000);
  EXPECT_EQ(group.worker.capacity.gpus, 2);
  EXPECT_EQ(group.worker.slots, 50u);
  EXPECT_EQ(group.worker.labels.at("uccp/pool"), "ml");
  EXPECT_EQ(group.worker.labels.at(tasks::kScalingGroupLabel), "gpu");
  const LocalGroup& local = out->workers.at("gpu");
  EXPECT_EQ(local.flags,
            (std::vector<std::string>{"--cpu", "4", "--memory", "8589934592", "--pool", "ml", "--type", "high-memory",
                                      "--label", "rack=7", "--taint", "team=ml:NO_EXECUTE", "--cache", "1Gi"}));
  EXPECT_NE(local.inventory.find("nvidia-h100"), std::string::npos) << local.inventory;
}

TEST(ScalingGroups, WhatIsWrongIsRefusedWithItsPlace) {
  const std::string worker = R"("worker": {"resources": {"total": {"cpu": 1, "memory": "1Gi"}}})";
  const auto group = [&](const std::string& more) { return "{\"groups\": [{" + more + "}]}"; };
  EXPECT_EQ(refused("[]"), "the scaling groups of groups.json: it is not a JSON object, such as {\"groups\": [...]}");
  EXPECT_EQ(refused("{}"),
            "the scaling groups of groups.json: it must have \"groups\", a list of at least one, and nothing else");
  EXPECT_EQ(refused(group(R"("name": "a b", "max": 1, )" + worker)),
            "the scaling groups of groups.json: groups[0]: name must be of a-z, 0-9 and -, 1 to 40 characters");
  EXPECT_EQ(refused(group(R"("name": "a", "min": 2, "max": 1, )" + worker)),
            "the scaling groups of groups.json: groups[0]: max must be at least 1 and at least min");
  EXPECT_EQ(refused(group(R"("name": "a", "max": 1.5, )" + worker)),
            "the scaling groups of groups.json: groups[0]: max must be a whole number from 0 to 10000");
  EXPECT_EQ(refused(group(R"("name": "a", "max": 1)")),
            "the scaling groups of groups.json: groups[0]: worker is missing; it says what each of the group's workers "
            "has");
  EXPECT_EQ(refused(group(R"("name": "a", "max": 1, "size": 3)")),
            "the scaling groups of groups.json: groups[0]: there is no \"size\"; a group has name, min, max, worker, "
            "agentFlags");
  EXPECT_EQ(refused(group(R"("name": "a", "max": 1, "worker": {"resources": {"total": {"cpu": 1}}})")),
            "the scaling groups of groups.json: groups[0]: worker.resources.total must have cpu and memory");
  const auto with = [&](const std::string& fields, const std::string& cpu) {
    return refused(group(R"("name": "a", "max": 1, "worker": {)" + fields + R"("resources": {"total": {"cpu": )" + cpu +
                         R"(, "memory": "1Gi"}}})"));
  };
  EXPECT_EQ(with("", "2"), "taken");
  for (const char* price : {"-0.5", "\"NaN\"", "\"Infinity\""})
    EXPECT_NE(with("\"pricePerHour\": " + std::string(price) + ", ", "2").find("pricePerHour"), std::string::npos)
        << price;
  EXPECT_NE(with("", "\"Infinity\"").find("cpu"), std::string::npos);
  EXPECT_EQ(with(R"("gpus": [{"count": -1}], )", "2"),
            "the scaling groups of groups.json: groups[0]: worker.gpus[].count must be at least 1");
}

}  // namespace
}  // namespace uccp::server
