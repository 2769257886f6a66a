// Where the cluster and the credentials come from.
#include "cli/settings.h"

#include <gtest/gtest.h>

#include <map>

namespace uccp::cli {
namespace {

struct Machine {
  std::map<std::string, std::string> files;
  std::map<std::string, std::string> env;

  Io io() {
    Io io;
    io.env = [this](const std::string& name) -> std::optional<std::string> {
      return env.contains(name) ? std::optional<std::string>(env[name]) : std::nullopt;
    };
    io.file_exists = [this](const std::string& path) { return files.contains(path); };
    io.read_file = [this](const std::string& path) -> Result<std::string> {
      if (!files.contains(path)) return fail(Code::kInvalid, "FILE_UNREADABLE", "cannot read " + path);
      return files[path];
    };
    return io;
  }
};

TEST(Context, NodesAreTriedBehindTheMainAddress) {
  Machine machine;
  machine.files["c.json"] = R"({"grpc":"a:1","nodes":[{"grpc":"a:1"},{"grpc":"https://b:2","id":"n2"},"c:3"]})";
  Settings settings;
  settings.context_file = "c.json";
  const Result<Context> context = load_context(settings, machine.io());
  ASSERT_TRUE(context) << context.error().message();
  EXPECT_EQ(context->targets, (std::vector<std::string>{"a:1", "b:2", "c:3"}));
}

TEST(Context, PathsAreRelativeToTheFileThatNamesThem) {
  Machine machine;
  machine.files["data/dev.json"] = R"({"grpc":"a:1","ca":"pki/ca.pem","token":"t"})";
  machine.files["data/pki/ca.pem"] = "CA";
  machine.env["UCCP_CONTEXT_FILE"] = "data/dev.json";
  const Result<Context> context = load_context({}, machine.io());
  ASSERT_TRUE(context) << context.error().message();
  EXPECT_EQ(context->ca_pem, "CA");
  EXPECT_EQ(context->token, "t");
}

TEST(Context, FlagsWinOverTheEnvironmentAndThatOverTheFile) {
  Machine machine;
  machine.files["./data/dev.json"] = R"({"grpc":"a:1","token":"of file"})";
  machine.env["UCCP_TOKEN"] = "of environment";
  Settings settings;
  EXPECT_EQ(load_context(settings, machine.io())->token, "of environment");
  settings.token = "of flag";
  EXPECT_EQ(load_context(settings, machine.io())->token, "of flag");
}

TEST(Context, AServerIsNotMixedWithTheDevelopmentCluster) {
  Machine machine;
  machine.files["./data/dev.json"] = R"({"grpc":"a:1","token":"secret"})";
  Settings settings;
  settings.server = "other:1";
  const Result<Context> context = load_context(settings, machine.io());
  ASSERT_TRUE(context);
  EXPECT_EQ(context->targets, (std::vector<std::string>{"other:1"}));
  EXPECT_EQ(context->token, "");
}

TEST(Context, AMissingFileIsNamed) {
  Machine machine;
  Settings settings;
  settings.context_file = "gone.json";
  const Result<Context> context = load_context(settings, machine.io());
  ASSERT_FALSE(context);
  EXPECT_NE(context.error().message().find("gone.json"), std::string::npos);
}

}  // namespace
}  // namespace uccp::cli
