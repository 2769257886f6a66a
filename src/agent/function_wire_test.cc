#include "agent/function_wire.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/bytes.h"
#include "services/function_names.h"
#include "uccp/v1/compute.pb.h"

namespace uccp::agent {
namespace {

constexpr uint64_t kLarge = 64u << 20;

struct Pair {
  Pair() {
    int fds[2] = {-1, -1};
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, fds), 0);
    one = OwnedFd(fds[0]);
    other = OwnedFd(fds[1]);
  }
  OwnedFd one, other;
};

std::string field(char tag, std::string_view content) {
  return ByteWriter().u8(static_cast<uint8_t>(tag)).u32(static_cast<uint32_t>(content.size())).raw(content).take();
}

std::string temporary_file(const std::string& name, std::string_view content) {
  const std::string path = (std::filesystem::temp_directory_path() / (name + std::to_string(getpid()))).string();
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

TEST(FunctionWire, SmallBodiesTravelInThePacketAndLargeOnesInAFile) {
  for (const size_t size : {size_t{0}, size_t{10}, kInlineBodyBytes, kInlineBodyBytes + 1, size_t{5} << 20}) {
    Pair pair;
    const std::string body(size, 'x');
    ASSERT_TRUE(send_packet(pair.one.get(), 'R', body, {}).is_ok());
    auto packet = receive_packet(pair.other.get());
    ASSERT_TRUE(packet && packet->has_value());
    EXPECT_EQ((*packet)->kind, 'R');
    EXPECT_EQ(static_cast<bool>((*packet)->file), size > kInlineBodyBytes);
    const std::string got = body_of(std::move(**packet), kLarge).value();
    EXPECT_EQ(got, body);
  }
}

TEST(FunctionWire, NothingToReadIsNoEndAndAClosedSocketIsOne) {
  Pair pair;
  auto nothing = receive_packet(pair.one.get());
  ASSERT_TRUE(nothing.has_value());
  EXPECT_FALSE(nothing->has_value());
  pair.other.reset();
  EXPECT_EQ(receive_packet(pair.one.get()).error().reason(), "WORKER_GONE");
}

TEST(FunctionWire, WhatIsNoMessageIsRefused) {
  for (const std::string& bad : {std::string("R"), std::string("R\1", 2)}) {
    Pair pair;
    ASSERT_EQ(send(pair.one.get(), bad.data(), bad.size(), 0), static_cast<ssize_t>(bad.size()));
    EXPECT_EQ(receive_packet(pair.other.get()).error().reason(), "WORKER_PACKET_INVALID") << bad;
  }
}

TEST(FunctionWire, AReplyIsReadAndATornOneCountsAsAFailure) {
  const std::string body = field('q', std::string(1, '\0')) + field('m', "said") + field('u', "1500") +
                           field('r', "4096") + field('c', "application/json") + field('d', "[1]");
  const WorkerReply reply = reply_of(body);
  EXPECT_EQ(reply.code, 0);
  EXPECT_EQ(reply.message, "said");
  EXPECT_EQ(reply.cpu_us, 1500);
  EXPECT_EQ(reply.memory_peak_bytes, 4096u);
  EXPECT_EQ(reply.content, "[1]");
  for (size_t size = 0; size < 6; ++size) EXPECT_NE(reply_of(body.substr(0, size)).code, 0) << size;
  EXPECT_EQ(reply_of(body.substr(0, body.size() - 1)).content, "");
}

TEST(FunctionWire, ACallCarriesItsArgumentsInOrderAndOpensItsFiles) {
  v1::Function bundle;
  bundle.set_name("f");
  bundle.set_entry_point("m:f");
  bundle.set_source("def f(): pass");
  const std::string path = temporary_file("uccp-bundle", bundle.SerializeAsString());
  const std::string large = temporary_file("uccp-argument", "large");
  const auto code = read_bundle(path);
  ASSERT_TRUE(code.has_value());
  AttemptSpec spec{.task_id = "task_1", .env = {{"A", "b"}}};
  spec.inputs = {{.path = std::string(functions::kBundleInput), .source_path = path},
                 {.path = "args/0", .source_path = large}};
  using Kind = FunctionArgument::Kind;
  spec.function = FunctionCallSpec{.name = "f",
                                   .arguments = {{.kind = Kind::kFile, .content_type = "x/y", .input = "args/0"},
                                                 {.kind = Kind::kJson, .name = "k", .content = "1"}}};
  auto first = encode_call(spec, *code, true);
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(find_field(first->body, 's'), "def f(): pass");
  EXPECT_EQ(find_field(first->body, 'c'), "x/y");
  EXPECT_EQ(find_field(first->body, 'k'), "k");
  EXPECT_EQ(find_field(first->body, 'j'), "1");
  EXPECT_EQ(find_field(first->body, 'v'), "A=b");
  ASSERT_EQ(first->files.size(), 1u);
  EXPECT_EQ(read_whole(first->files[0].get(), kLarge).value(), "large");
  EXPECT_EQ(find_field(encode_call(spec, *code, false)->body, 's'), "") << "known code does not travel again";
  std::filesystem::remove(large);
  EXPECT_EQ(encode_call(spec, *code, false).error().reason(), "IO_ERROR");
  std::filesystem::remove(path);
}

TEST(FunctionWire, AFileIsNotReadBeyondWhatItMayHave) {
  const std::string path = temporary_file("uccp-endless", "");
  // Takes no room on the disk, and would take all memory.
  std::filesystem::resize_file(path, uint64_t{1} << 42);
  const OwnedFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::filesystem::remove(path);
  ASSERT_TRUE(file);
  const auto content = read_whole(file.get(), kLarge);
  ASSERT_FALSE(content);
  EXPECT_EQ(content.error().reason(), "FILE_TOO_LARGE");
}

TEST(FunctionWire, ABundleThatIsNoneIsToldFromOneThatIsMissing) {
  const std::string path = temporary_file("uccp-broken", "\xff\xff");
  EXPECT_EQ(read_bundle(path).error().reason(), "BUNDLE_INVALID");
  std::filesystem::remove(path);
  EXPECT_EQ(read_bundle(path).error().reason(), "IO_ERROR");
}

}  // namespace
}  // namespace uccp::agent
