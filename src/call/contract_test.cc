#include "call/contract.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "call/contract_docs.h"
#include "call/contract_link.h"

namespace uccp::call {
namespace {

TEST(Contract, MethodsAreFoundByNameAndPath) {
  const Contract& contract = Contract::get();
  const Method* method = contract.find("uccp.v1.TaskScheduling/ScheduleTask");
  ASSERT_NE(method, nullptr);
  EXPECT_EQ(contract.find("/uccp.v1.TaskScheduling/ScheduleTask"), method);
  EXPECT_EQ(contract.find("uccp.v1.TaskScheduling/Nope"), nullptr);
  EXPECT_EQ(&contract.methods()[method->index], method);
  EXPECT_EQ(method->request, &contract.plan("uccp.v1.ScheduleTaskRequest"));
}

TEST(Contract, PoliciesAreCompiled) {
  const Method& schedule = *Contract::get().find("uccp.v1.TaskScheduling/ScheduleTask");
  EXPECT_EQ(schedule.permission, "tasks.write");
  EXPECT_EQ(schedule.resource.text(), "task.name");
  EXPECT_EQ(schedule.name_space.text(), "task.namespace");
  EXPECT_EQ(schedule.request_id.text(), "requestId");
  EXPECT_EQ(schedule.audit, AuditLevel::kRequest);
  EXPECT_TRUE(schedule.mutating);
  EXPECT_EQ(schedule.rest_success, 201);
  EXPECT_EQ(schedule.etag.text(), "etag");
  EXPECT_EQ(schedule.quota_class, "write");
  EXPECT_EQ(schedule.quota_cost, 2u);
  EXPECT_TRUE(schedule.cli->long_running);
  EXPECT_EQ(schedule.cli->args.at(0).text(), "task.command");

  const Method& list = *Contract::get().find("uccp.v1.ServiceDiscovery/ListServices");
  EXPECT_FALSE(list.mutating);
  ASSERT_TRUE(list.paging.has_value());
  EXPECT_EQ(list.items->name, "services");
  EXPECT_EQ(list.paging->next_page_token.text(), "nextPageToken");
  EXPECT_EQ(list.cli->columns.at(1), "serviceName");
  EXPECT_EQ(list.read_level, DefaultRead::kBounded);

  const Method& logs = *Contract::get().find("uccp.v1.TaskScheduling/GetTaskLogs");
  EXPECT_TRUE(logs.server_streaming);
  EXPECT_EQ(logs.resume.text(), "since");
  EXPECT_EQ(logs.end.text(), "end");
  EXPECT_EQ(logs.cursor.text(), "cursor");
}

TEST(Contract, NamesAreUnique) {
  std::set<std::string> names, commands;
  for (const Method& method : Contract::get().methods()) {
    EXPECT_TRUE(names.insert(method.full_name).second);
    if (method.cli) {
      EXPECT_TRUE(commands.insert(method.cli->noun + " " + method.cli->verb).second) << method.full_name;
    }
    if (method.server_streaming) {
      EXPECT_FALSE(method.end.empty()) << method.full_name;
    }
  }
}

TEST(Contract, EveryFileOfTheContractIsLinked) {
  std::set<std::string> linked;
  for (const std::string_view name : linked_files()) linked.insert(std::string(name));
  for (const auto& entry : std::filesystem::directory_iterator("api/uccp/v1")) {
    EXPECT_TRUE(linked.contains("uccp/v1/" + entry.path().filename().string())) << entry.path();
  }
}

TEST(ContractDocs, CommentsComeFromTheImage) {
  EXPECT_FALSE(ContractDocs::parse("nonsense\xff"));
  for (const char* path : {"build/release/uccp_contract.binpb", "build/dev/uccp_contract.binpb"}) {
    std::ifstream file(path, std::ios::binary);
    if (!file) continue;
    std::stringstream bytes;
    bytes << file.rdbuf();
    const auto docs = ContractDocs::parse(bytes.str());
    ASSERT_TRUE(docs);
    EXPECT_EQ(docs->sentence("uccp.v1.TaskScheduling.ScheduleTask"), "Accepts a task and queues it");
    EXPECT_FALSE(docs->comment("uccp.v1.Task.name").empty());
    EXPECT_FALSE(docs->comment("uccp.v1.TaskStatus.TASK_STATUS_QUEUED").empty());
    EXPECT_TRUE(docs->comment("uccp.v1.Nope").empty());
    return;
  }
  GTEST_SKIP() << "no contract image was built";
}

}  // namespace
}  // namespace uccp::call
