// The OpenAPI document: its rules, and the reviewed copies in docs/openapi. UCCP_REWRITE=1 writes them; review the
// diff.
#include "call/openapi.h"

#include <gtest/gtest.h>
#include <simdjson.h>

#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace uccp::call {
namespace {

using simdjson::dom::element;

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

const ContractDocs& docs() {
  static const ContractDocs parsed = [] {
    for (const char* preset : {"release", "dev", "asan", "tsan", "fuzz", "planted"}) {
      const std::string image = read_file("build/" + std::string(preset) + "/uccp_contract.binpb");
      if (!image.empty()) return std::move(*ContractDocs::parse(image));
    }
    return ContractDocs();
  }();
  return parsed;
}

std::string document(OpenApiLevel level, std::function<bool(const Method&)> is_built = {}) {
  return openapi_json(Contract::get(), docs(), {.level = level, .is_built = std::move(is_built)});
}

// Two spaces a level, so that a diff shows what changed.
std::string pretty(std::string_view json) {
  std::string out;
  size_t depth = 0;
  bool quoted = false;
  const auto line = [&] { out.append("\n").append(depth * 2, ' '); };
  for (size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (quoted || c == '"') {
      out.push_back(c);
      if (c == '\\') out.push_back(json[++i]);
      else if (c == '"') quoted = !quoted;
    } else if (c == '{' || c == '[') {
      out.push_back(c);
      if (json[i + 1] == (c == '{' ? '}' : ']')) {
        out.push_back(json[++i]);
      } else {
        ++depth;
        line();
      }
    } else if (c == '}' || c == ']') {
      --depth;
      line();
      out.push_back(c);
    } else {
      out.push_back(c);
      if (c == ':') out.push_back(' ');
      if (c == ',') line();
    }
  }
  return out + "\n";
}

void expect_golden(const std::string& name, const std::string& json) {
  const std::string path = "docs/openapi/" + name, text = pretty(json);
  if (std::getenv("UCCP_REWRITE") != nullptr) {
    std::ofstream(path, std::ios::binary) << text;
    return;
  }
  EXPECT_TRUE(read_file(path) == text) << path
                                       << " is not what the contract gives. Look at what changed, then: UCCP_REWRITE=1 "
                                       << "build/release/tests/call_test --gtest_filter='*OpenApi*'";
}

void collect_references(const element& value, std::set<std::string>& out) {
  if (value.is_object()) {
    for (const auto [key, member] : simdjson::dom::object(value)) {
      if (key == "$ref") out.insert(std::string(std::string_view(member)));
      collect_references(member, out);
    }
  } else if (value.is_array()) {
    for (const element item : simdjson::dom::array(value)) collect_references(item, out);
  }
}

// Schemas of integers that have the limits of their type and no example: pages would show the least of all numbers.
void collect_unsampled(element value, const std::string& path, std::vector<std::string>& out) {
  if (value.is_object()) {
    int64_t least = 0;
    if (value["minimum"].get(least) == simdjson::SUCCESS && least <= INT32_MIN &&
        value["example"].error() != simdjson::SUCCESS && value["examples"].error() != simdjson::SUCCESS) {
      out.push_back(path);
    }
    for (const auto [key, member] : simdjson::dom::object(value))
      collect_unsampled(member, path + "/" + std::string(key), out);
  } else if (value.is_array()) {
    for (const element item : simdjson::dom::array(value)) collect_unsampled(item, path + "/-", out);
  }
}

class OpenApiTest : public ::testing::TestWithParam<OpenApiLevel> {
 protected:
  OpenApiTest() : text_(document(GetParam())) {
    EXPECT_EQ(parser_.parse(text_).get(root_), simdjson::SUCCESS) << text_.substr(0, 200);
  }
  std::string text_;
  simdjson::dom::parser parser_;
  element root_;
};

TEST_P(OpenApiTest, IsTheReviewedDocument) {
  expect_golden(GetParam() == OpenApiLevel::k31 ? "openapi.json" : "openapi-3.0.json", text_);
}

TEST_P(OpenApiTest, ListsEveryRouteOfTheContract) {
  std::set<std::string> ids;
  size_t routes = 0;
  for (const auto [path, item] : simdjson::dom::object(root_["paths"])) {
    for (const auto [verb, operation] : simdjson::dom::object(item)) {
      EXPECT_TRUE(ids.insert(std::string(std::string_view(operation["operationId"]))).second) << path;
      if (operation["x-uccp-method"].error() == simdjson::SUCCESS) ++routes;
    }
  }
  size_t wanted = 0;
  for (const Method& method : Contract::get().methods()) wanted += method.bindings.size() - 1;
  EXPECT_EQ(routes, wanted);
}

TEST_P(OpenApiTest, EveryReferenceHasATarget) {
  std::set<std::string> references;
  collect_references(root_, references);
  EXPECT_GT(references.size(), 100u);
  for (const std::string& reference : references) {
    EXPECT_EQ(root_.at_pointer(reference.substr(1)).error(), simdjson::SUCCESS) << reference;
  }
}

TEST_P(OpenApiTest, EveryVariableOfAPathIsDeclaredAndNoParameterTwice) {
  for (const auto [path, item] : simdjson::dom::object(root_["paths"])) {
    for (const auto [verb, operation] : simdjson::dom::object(item)) {
      std::set<std::string> names;
      simdjson::dom::array parameters;
      if (operation["parameters"].get(parameters) != simdjson::SUCCESS) continue;
      for (element parameter : parameters) {
        std::string_view reference;
        if (parameter["$ref"].get(reference) == simdjson::SUCCESS) parameter = root_.at_pointer(reference.substr(1));
        const std::string_view plain = parameter["name"], in = parameter["in"];
        EXPECT_TRUE(names.insert(std::string(in) + " " + std::string(plain)).second)
            << verb << " " << path << " " << plain;
      }
      for (size_t at = path.find('{'); at != std::string_view::npos; at = path.find('{', at + 1)) {
        const std::string name(path.substr(at + 1, path.find('}', at) - at - 1));
        EXPECT_TRUE(names.contains("path " + name)) << verb << " " << path << " " << name;
      }
    }
  }
}

TEST_P(OpenApiTest, OnlyUnbuiltMethodsDeclare501) {
  const std::string text = document(GetParam(), [](const Method& method) { return method.name != "GetTaskMetrics"; });
  simdjson::dom::parser parser;
  const element root = parser.parse(text);
  size_t marked = 0;
  for (const auto [path, item] : simdjson::dom::object(root["paths"])) {
    for (const auto [verb, operation] : simdjson::dom::object(item)) {
      const bool unbuilt = operation["x-uccp-unbuilt"].error() == simdjson::SUCCESS;
      EXPECT_EQ(unbuilt, operation["responses"]["501"].error() == simdjson::SUCCESS) << verb << " " << path;
      marked += unbuilt ? 1 : 0;
    }
  }
  EXPECT_EQ(marked, 1u);
}

TEST_P(OpenApiTest, SchemasSayWhatTheContractSays) {
  const element task = root_["components"]["schemas"]["Task"];
  EXPECT_EQ(
      std::string_view(task["properties"]["status"][GetParam() == OpenApiLevel::k31 ? "$ref" : "description"]).empty(),
      false);
  EXPECT_TRUE(bool(task["properties"]["createTime"]["readOnly"]));
  EXPECT_EQ(std::string_view(task["properties"]["createTime"]["format"]), "date-time");
  const element statuses = root_["components"]["schemas"]["TaskStatus"]["enum"];
  EXPECT_EQ(std::string_view(statuses.at(0)), "PENDING");
  EXPECT_EQ(
      std::string_view(root_["paths"]["/api/v1/tasks"]["post"]["responses"]["201"]["headers"]["Location"]["$ref"]),
      "#/components/headers/Location");
  EXPECT_TRUE(
      root_["paths"]["/api/v1/tasks/{id}/logs"]["get"]["responses"]["200"]["content"]["text/event-stream"].is_object());
}

TEST_P(OpenApiTest, NoNumberIsShownAsTheLeastOfItsType) {
  std::vector<std::string> unsampled;
  collect_unsampled(root_, "", unsampled);
  EXPECT_EQ(unsampled, std::vector<std::string>());
}

TEST_P(OpenApiTest, ValuesOfAMapHaveItsLimits) {
  const element port =
      root_["components"]["schemas"]["ServiceRegistration"]["properties"]["ports"]["additionalProperties"];
  EXPECT_EQ(int64_t(port["minimum"]), 1);
  EXPECT_EQ(int64_t(port["maximum"]), 65535);
}

INSTANTIATE_TEST_SUITE_P(Levels, OpenApiTest, ::testing::Values(OpenApiLevel::k31, OpenApiLevel::k30),
                         [](const auto& info) { return info.param == OpenApiLevel::k31 ? "V31" : "V30"; });

}  // namespace
}  // namespace uccp::call
