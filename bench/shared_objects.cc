#include "bench/shared_objects.h"

#include <fmt/format.h>
#include <simdjson.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "agent/function_wire.h"
#include "base/bytes.h"
#include "bench/process.h"
#include "shm/reader.h"

namespace uccp::bench {
namespace {

using SteadyClock = std::chrono::steady_clock;
constexpr int kSampleEvery = 64;
constexpr int kRedisWaitMs = 10'000, kRedisStepMs = 50;

std::unexpected<Status> failed(const std::string& what) {
  return fail(Code::kUnavailable, "OBJECTS_UNREACHABLE", what + ": " + std::strerror(errno));
}

// A process' connection to the agent, and what it sees of the objects of the first tenant's default namespace.
struct Attached {
  runtime::OwnedFd socket;
  std::optional<shm::Reader> reader;
};

struct Door {
  std::string socket, grant;
};

Result<Door> door_of(const std::string& agent_directory) {
  UCCP_TRY(const std::string text, read_text(agent_directory + "/objects.json"));
  simdjson::dom::parser parser;
  simdjson::dom::element json;
  std::string_view socket, grant;
  if (parser.parse(simdjson::padded_string(text)).get(json) != simdjson::SUCCESS ||
      json["socket"].get(socket) != simdjson::SUCCESS || json["grant"].get(grant) != simdjson::SUCCESS)
    return fail(Code::kUnavailable, "OBJECTS_UNREACHABLE", agent_directory + "/objects.json is not as it should be");
  return Door{std::string(socket), std::string(grant)};
}

Result<Attached> attach(const Door& door) {
  Attached attached{.socket = runtime::OwnedFd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)), .reader = {}};
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path + 1, door.socket.data(), door.socket.size());
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + door.socket.size());
  if (connect(attached.socket.get(), reinterpret_cast<sockaddr*>(&address), size) != 0) return failed("connect");
  std::string body;
  agent::append_field(body, 'x', door.grant);
  agent::append_field(body, 't', "default");
  agent::append_field(body, 'n', "default");
  UCCP_RETURN_IF_ERROR(agent::send_packet(attached.socket.get(), 'T', body, {}));
  char answer[1024];
  iovec part{.iov_base = answer, .iov_len = sizeof answer};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 3)] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t got = recvmsg(attached.socket.get(), &message, MSG_CMSG_CLOEXEC);
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (got < 2 || answer[0] != 'T' || header == nullptr || header->cmsg_len != CMSG_LEN(sizeof(int) * 3))
    return failed("the agent does not let us in");
  int fds[3];
  std::memcpy(fds, CMSG_DATA(header), sizeof fds);
  const runtime::OwnedFd index(fds[0]), segment(fds[1]), page(fds[2]);
  UCCP_TRY(attached.reader, shm::Reader::open(index.get(), segment.get(), page.get()));
  return attached;
}

Status put(const Attached& attached, const shm::ObjectId& id, const std::string& content) {
  std::string body;
  agent::append_field(body, 'i', {reinterpret_cast<const char*>(id.data()), id.size()});
  agent::append_field(body, 'd', content);
  UCCP_RETURN_IF_ERROR(agent::send_packet(attached.socket.get(), 'P', body, {}));
  char answer[1024];
  if (recv(attached.socket.get(), answer, sizeof answer, 0) < 2 || answer[0] != 'P')
    return failed("the agent does not take an object").error();
  return {};
}

struct Counted {
  uint64_t gets = 0;
  bool wrong = false;
  std::vector<double> sampled_us;
};

void read_until(shm::Reader& reader, const shm::ObjectId& id, const std::string& content, const std::atomic<bool>& over,
                Counted& counted) {
  std::string read;
  while (!over.load(std::memory_order_relaxed)) {
    const bool sample = counted.gets % kSampleEvery == 0;
    const auto began = sample ? SteadyClock::now() : SteadyClock::time_point();
    const bool found = reader.copy(id, read);
    if (sample)
      counted.sampled_us.push_back(std::chrono::duration<double, std::micro>(SteadyClock::now() - began).count());
    counted.wrong |= !found || read != content;
    counted.gets += 1;
  }
}

}  // namespace

Result<SharedGets> shared_gets(const std::string& agent_directory, size_t readers, size_t bytes, double seconds) {
  UCCP_TRY(const Door door, door_of(agent_directory));
  const std::string content(bytes, 'o');
  const shm::ObjectId id = {1, 2, 3, 4, 5, 6, 7, 8};
  std::vector<Attached> attached;
  for (size_t i = 0; i < readers; ++i) {
    UCCP_TRY(Attached one, attach(door));
    attached.push_back(std::move(one));
  }
  UCCP_RETURN_IF_ERROR(put(attached.front(), id, content));
  std::atomic<bool> over = false;
  std::vector<Counted> counted(readers);
  std::vector<std::thread> threads;
  const auto began = SteadyClock::now();
  for (size_t i = 0; i < readers; ++i)
    threads.emplace_back([&, i] { read_until(*attached[i].reader, id, content, over, counted[i]); });
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  over = true;
  for (std::thread& thread : threads) thread.join();
  const double took = std::chrono::duration<double>(SteadyClock::now() - began).count();
  SharedGets result;
  std::vector<double> sampled;
  for (const Counted& one : counted) {
    if (one.wrong) return fail(Code::kCorruption, "CONTENT_WRONG", "a reader saw something else than was put");
    result.verified += one.gets;
    sampled.insert(sampled.end(), one.sampled_us.begin(), one.sampled_us.end());
  }
  result.rate = static_cast<double>(result.verified) / took;
  const auto p99 = sampled.begin() + static_cast<std::ptrdiff_t>(sampled.size() * 99 / 100);
  std::ranges::nth_element(sampled, p99);
  result.p99_us = *p99;
  return result;
}

Result<double> redis_gets(const Context& context, size_t clients, size_t bytes, double seconds) {
  if (!installed("redis-server") || !installed("redis-benchmark"))
    return fail(Code::kNotFound, "REDIS_MISSING", "redis-server and redis-benchmark are not installed (Debian: redis)");
  const std::string port = std::to_string(free_port()), directory = new_directory(context, "redis-gets");
  UCCP_TRY(const Child server, Child::start({"redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "",
                                             "--appendonly", "no", "--dir", directory},
                                            directory + "/redis.log"));
  const auto load = [&](const std::string& test, uint64_t count) -> Result<double> {
    UCCP_TRY(const Ended ended, run_program({"redis-benchmark", "-p", port, "-c", std::to_string(clients), "-d",
                                             std::to_string(bytes), "-n", std::to_string(count), "-t", test, "--csv"},
                                            directory + "/load.txt"));
    const size_t line = ended.text.rfind(test == "get" ? "\"GET\",\"" : "\"SET\",\"");
    if (line == std::string::npos)
      return fail(Code::kUnavailable, "REDIS_FAILED", ended.how + ": " + ended.text.substr(0, 300));
    return std::strtod(ended.text.c_str() + line + 7, nullptr);
  };
  // redis-benchmark itself spins for ever when nobody answers yet.
  const auto answers = [&] {
    const auto ended = run_program({"redis-cli", "-p", port, "ping"}, directory + "/ping.txt");
    return ended && ended->text.find("PONG") != std::string::npos;
  };
  for (int waited = 0; !answers(); waited += kRedisStepMs) {
    if (waited > kRedisWaitMs) return fail(Code::kUnavailable, "REDIS_FAILED", "redis-server does not answer");
    std::this_thread::sleep_for(std::chrono::milliseconds(kRedisStepMs));
  }
  UCCP_TRY(const double stored, load("set", 1000));
  UCCP_TRY(const double guess, load("get", 20'000));
  if (stored < 1 || guess < 1) return fail(Code::kUnavailable, "REDIS_FAILED", "redis-benchmark says no rate");
  return load("get", static_cast<uint64_t>(guess * seconds));
}

}  // namespace uccp::bench
