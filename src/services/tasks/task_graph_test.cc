#include "services/tasks/task_graph.h"

#include <gtest/gtest.h>

#include <string>

namespace uccp::tasks {
namespace {

struct Edge {
  std::string from, to;
};

v1::ScheduleTaskGraphRequest graph(const std::string& keys, const std::vector<Edge>& edges) {
  v1::ScheduleTaskGraphRequest request;
  for (const char key : keys) request.add_tasks()->set_key(std::string(1, key));
  for (const Edge& edge : edges) {
    for (auto& task : *request.mutable_tasks()) {
      if (task.key() == edge.to) task.add_after()->set_key(edge.from);
    }
  }
  return request;
}

std::string order(const v1::ScheduleTaskGraphRequest& request) {
  const auto places = order_of(request);
  if (!places) return std::string(places.error().reason()) + ": " + places.error().message();
  std::string text;
  for (const int place : *places) text += request.tasks(place).key();
  return text;
}

TEST(TaskGraph, EachComesBehindWhatItWaitsFor) {
  EXPECT_EQ(order(graph("dcba", {{"a", "b"}, {"b", "c"}, {"a", "d"}, {"c", "d"}})), "abcd");
  EXPECT_EQ(order(graph("abc", {})), "abc");
  EXPECT_EQ(order(graph("ab", {{"a", "b"}, {"a", "b"}})), "ab");
}

TEST(TaskGraph, ACycleIsRefusedWithItsWay) {
  const std::string refusal = order(graph("sabct", {{"s", "a"}, {"a", "b"}, {"b", "c"}, {"c", "a"}, {"c", "t"}}));
  EXPECT_TRUE(refusal.starts_with("DEPENDENCY_CYCLE")) << refusal;
  EXPECT_NE(refusal.find("a -> b -> c -> a"), std::string::npos) << refusal;
  EXPECT_EQ(refusal.find("s ->"), std::string::npos) << refusal;
  EXPECT_NE(order(graph("a", {{"a", "a"}})).find("a -> a"), std::string::npos);
}

// What is behind a cycle waits as well, and is no part of it.
TEST(TaskGraph, TheWayBeginsInTheCycle) {
  const std::string refusal = order(graph("tab", {{"b", "t"}, {"a", "b"}, {"b", "a"}}));
  EXPECT_TRUE(refusal.find("a -> b -> a") != std::string::npos || refusal.find("b -> a -> b") != std::string::npos)
      << refusal;
}

TEST(TaskGraph, KeysAreUniqueAndKnown) {
  EXPECT_TRUE(order(graph("aa", {})).starts_with("GRAPH_KEY_TAKEN"));
  EXPECT_TRUE(order(graph("a", {{"x", "a"}})).starts_with("GRAPH_KEY_UNKNOWN"));
}

}  // namespace
}  // namespace uccp::tasks
