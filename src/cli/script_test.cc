// Runs the transcripts in testdata/*.txt: a command line, what the cluster would answer, and all that the program does:
// calls, standard output, standard error, exit code. UCCP_REWRITE=1 writes what happened into the files; review the
// diff.
//
//   answer METHOD JSON           the next call of METHOD gets this response
//   error METHOD CODE REASON TEXT              ... or this error; `invalid` comes with a wrong field
//   item METHOD JSON             an item of the next stream of METHOD; `answer` and `error` after items end it,
//   close METHOD                 and so does this, in good order
//   file PATH TEXT               a file, with \n for line breaks
//   env NAME VALUE
//   nodes NUMBER                 nodes in the context; default 1
//   show PATH                    prints a file that a command wrote
//   $ ARGUMENTS                  runs uccp-cli
//   ----
//   -> METHOD JSON               a call and its request; without any answer the transcript ends here
//   ~> next node | sleep MS      what the caller did between calls
//   text | ! text | exit N       standard output, standard error, exit code if not 0
#include <gtest/gtest.h>

#include <cstdlib>
#include <deque>
#include <fstream>
#include <map>
#include <sstream>

#include "call/contract.h"
#include "call/json_codec.h"
#include "cli/app.h"
#include "cli/request.h"

namespace uccp::cli {
namespace {

constexpr const char* kFolder = "src/cli/testdata/";
constexpr int64_t kNowUs = 1'704'067'800'000'000;  // 2024-01-01T00:10:00Z

struct Reply {
  std::vector<std::string> items;
  Status status;
};

struct World {
  std::map<std::string, std::deque<Reply>> replies;  // by method name
  std::map<std::string, Reply> open;                 // a stream being described
  std::map<std::string, std::string> files;
  std::map<std::string, std::string> env;
  size_t nodes = 1;
  int64_t slept_ms = 0;
  std::string log;
  size_t unscripted_at = std::string::npos;  // where the log ends that counts: a call had no answer

  void line(std::string_view text) { log += std::string(text) + "\n"; }
};

const call::Method& method_of(std::string_view path) { return *call::Contract::get().find(path); }

class FakeStream final : public ResponseStream {
 public:
  explicit FakeStream(Reply reply) : reply_(std::move(reply)) {}
  Result<std::optional<std::string>> read() override {
    if (next_ < reply_.items.size()) return std::optional<std::string>(reply_.items[next_++]);
    if (!reply_.status.is_ok()) return std::unexpected(reply_.status);
    return std::optional<std::string>();
  }

 private:
  Reply reply_;
  size_t next_ = 0;
};

class FakeTransport final : public Transport {
 public:
  explicit FakeTransport(World& world) : world_(world) {}
  Result<std::string> unary(const std::string& path, const std::string& request, const CallOptions& options) override {
    Reply reply = take(path, request, options);
    if (!reply.status.is_ok()) return std::unexpected(reply.status);
    return reply.items.empty() ? std::string() : reply.items.front();
  }
  Result<std::unique_ptr<ResponseStream>> open_stream(const std::string& path, const std::string& request,
                                                      const CallOptions& options) override {
    return std::make_unique<FakeStream>(take(path, request, options));
  }
  void next_node() override {
    if (world_.nodes > 1) world_.line("~> next node");
  }
  size_t node_count() const override { return world_.nodes; }

 private:
  Reply take(const std::string& path, const std::string& request, const CallOptions& options) {
    const call::Method& method = method_of(path);
    std::string line = "-> " + method.name + " " + request_json(method, request).value_or("?");
    for (const auto& [key, value] : options.metadata) line += " " + key + "=" + value;
    world_.line(line);
    std::deque<Reply>& replies = world_.replies[method.name];
    if (replies.empty()) {
      if (world_.replies.size() == 1) world_.unscripted_at = world_.log.size();  // only the request is of interest
      return {{}, Status(Code::kUnimplemented, "UNSCRIPTED", "no answer is scripted")};
    }
    Reply reply = std::move(replies.front());
    replies.pop_front();
    return reply;
  }

  World& world_;
};

// Words of a line, with single and double quotes.
std::vector<std::string> split_words(std::string_view line) {
  std::vector<std::string> words;
  std::string word;
  char quote = 0;
  bool open = false;
  for (const char c : line) {
    if (quote != 0) {
      if (c == quote) quote = 0;
      else word.push_back(c);
    } else if (c == '\'' || c == '"') {
      quote = c;
      open = true;
    } else if (c == ' ') {
      if (open || !word.empty()) words.push_back(std::move(word));
      word.clear();
      open = false;
    } else {
      word.push_back(c);
    }
  }
  if (open || !word.empty()) words.push_back(std::move(word));
  return words;
}

std::string take_word(std::string_view& rest) {
  const size_t end = std::min(rest.find(' '), rest.size());
  std::string word(rest.substr(0, end));
  rest.remove_prefix(std::min(end + 1, rest.size()));
  return word;
}

Code code_named(std::string_view name) {
  for (int i = 1; i < kCodeCount; ++i) {
    if (code_info(static_cast<Code>(i)).name == name) return static_cast<Code>(i);
  }
  ADD_FAILURE() << "no code " << name;
  return Code::kInternal;
}

std::string response_wire(const std::string& method_name, std::string_view json) {
  for (const call::Method& method : call::Contract::get().methods()) {
    if (method.name != method_name) continue;
    const Result<std::string> wire = call::json_to_wire(*method.response, json, {.keep_output_only = true});
    if (wire) return *wire;
    ADD_FAILURE() << method_name << ": " << wire.error().message();
  }
  return {};
}

void prefixed(World& world, std::string_view prefix, std::string_view text) {
  for (const char c : text) {
    if (world.log.empty() || world.log.back() == '\n') world.log += prefix;
    world.log.push_back(c);
  }
}

Io io_of(World& world) {
  Io io;
  io.out = [&world](std::string_view text) { prefixed(world, "", text); };
  io.err = [&world](std::string_view text) { prefixed(world, "! ", text); };
  io.env = [&world](const std::string& name) -> std::optional<std::string> {
    const auto found = world.env.find(name);
    return found == world.env.end() ? std::nullopt : std::optional<std::string>(found->second);
  };
  io.read_file = [&world](const std::string& path) -> Result<std::string> {
    const auto found = world.files.find(path);
    if (found == world.files.end()) return fail(Code::kInvalid, "FILE_UNREADABLE", "cannot read " + path);
    return found->second;
  };
  io.file_exists = [&world](const std::string& path) { return world.files.contains(path); };
  io.write_file = [&world](const std::string& path, std::string_view content) {
    world.files[path] = std::string(content);
    if (path.ends_with("session.json")) world.line("~> write " + path);
    return Status::ok();
  };
  io.remove_file = [&world](const std::string& path) {
    world.files.erase(path);
    return Status::ok();
  };
  io.list_folder = [&world](const std::string& path) {
    std::vector<std::string> names;
    for (const auto& [file, content] : world.files) {
      if (file.starts_with(path + "/")) names.push_back(file.substr(path.size() + 1));
    }
    return names;
  };
  io.wall_us = [&world] { return kNowUs + world.slept_ms * 1000; };
  io.sleep_ms = [&world](int64_t ms) {
    world.slept_ms += ms;
    world.line("~> sleep " + std::to_string(ms));
  };
  io.lock_file = [](const std::string&) { return std::shared_ptr<void>(); };
  io.read_secret = [&world](const std::string& prompt) -> Result<std::string> {
    world.line("~> ask " + prompt);
    return std::string("four small words here");
  };
  io.make_request_id = [] { return std::string("req-1"); };
  io.set_interrupt_note = [](const std::string&) {};
  return io;
}

void run_line(World& world, std::string_view line) {
  const std::vector<std::string> args = split_words(line);
  const AppOptions options{.connect = [&world](const Context&) -> Result<std::unique_ptr<Transport>> {
    return std::make_unique<FakeTransport>(world);
  }};
  const int code = run(args, io_of(world), options);
  if (world.unscripted_at != std::string::npos) {
    world.log.resize(world.unscripted_at);
    return;
  }
  if (!world.log.empty() && world.log.back() != '\n') world.log.push_back('\n');
  if (code != 0) world.line("exit " + std::to_string(code));
}

void finish_reply(World& world, const std::string& method, Status status) {
  Reply reply = std::move(world.open[method]);
  world.open.erase(method);
  reply.status = std::move(status);
  world.replies[method].push_back(std::move(reply));
}

std::string unescaped(std::string text) {
  for (size_t at = text.find("\\n"); at != std::string::npos; at = text.find("\\n", at)) text.replace(at, 2, "\n");
  return text;
}

void obey(World& world, std::string_view line) {
  std::string_view rest = line;
  const std::string word = take_word(rest);
  if (word == "$") return run_line(world, rest);
  if (word == "nodes") {
    world.nodes = static_cast<size_t>(std::stoi(std::string(rest)));
    return;
  }
  const std::string name = take_word(rest);
  if (word == "show") return prefixed(world, "", world.files[name]);
  if (word == "answer" || word == "item") {
    world.open[name].items.push_back(response_wire(name, rest));
    if (word == "answer") finish_reply(world, name, Status::ok());
  } else if (word == "close") {
    finish_reply(world, name, Status::ok());
  } else if (word == "error") {
    const Code code = code_named(take_word(rest));
    const std::string reason = take_word(rest);
    Status status(code, reason, std::string(rest));
    if (code == Code::kInvalid) status = std::move(status).with_field("task.name", "is wrong", "nightly");
    finish_reply(world, name, std::move(status));
  } else if (word == "file") {
    world.files[name] = unescaped(std::string(rest));
  } else if (word == "nofile") {
    world.files.erase(name);
  } else if (word == "env") {
    world.env[name] = std::string(rest);
  } else {
    ADD_FAILURE() << "unknown directive: " << line;
  }
}

std::string read_text(const std::string& path) {
  std::ifstream in(path);
  std::stringstream content;
  content << in.rdbuf();
  return content.str();
}

class Transcript : public testing::TestWithParam<const char*> {};

TEST_P(Transcript, DoesWhatIsWritten) {
  const std::string path = std::string(kFolder) + GetParam() + ".txt";
  std::istringstream in(read_text(path));
  std::string out, line, input, expected;
  bool in_output = false;
  bool any = false;
  const auto finish_case = [&] {
    if (!in_output) return;
    World world;
    world.files["./data/dev.json"] = R"({"grpc":"localhost:7000","token":"t"})";
    std::istringstream lines(input);
    for (std::string directive; std::getline(lines, directive);) {
      if (!directive.empty() && directive[0] != '#') obey(world, directive);
    }
    any = true;
    EXPECT_EQ(world.log, expected) << input;
    out += input + "----\n" + world.log + "\n";
    input.clear();
    expected.clear();
    in_output = false;
  };
  while (std::getline(in, line)) {
    if (line == "----") {
      in_output = true;
    } else if (in_output && line.empty()) {
      finish_case();
    } else {
      (in_output ? expected : input) += line + "\n";
    }
  }
  finish_case();
  EXPECT_TRUE(any) << path;
  if (std::getenv("UCCP_REWRITE") != nullptr) std::ofstream(path) << out;
}

INSTANTIATE_TEST_SUITE_P(Cli, Transcript,
                         testing::Values("requests", "answers", "streams", "tasks", "errors", "login", "local",
                                         "generic"),
                         [](const testing::TestParamInfo<const char*>& info) { return std::string(info.param); });

}  // namespace
}  // namespace uccp::cli
