#include "bench/zookeeper.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/bytes.h"
#include "bench/consensus.h"

namespace uccp::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kJar = "/usr/share/java/zookeeper.jar";
constexpr auto kReadyMax = std::chrono::seconds(30);
constexpr auto kPoll = std::chrono::milliseconds(20);
// Nothing is sent while the other side is measured.
constexpr uint32_t kSessionTimeoutMs = 600'000;
// Jute, ZooKeeper's encoding: big endian, strings and buffers behind their length. Operations by number.
constexpr uint32_t kCreate = 1, kSetData = 5;
constexpr uint32_t kAnyVersion = UINT32_MAX;
constexpr uint32_t kAllPermissions = 31;
constexpr size_t kReplyHeaderBytes = 16;  // request, transaction, error

void put_buffer(ByteWriter& out, std::string_view bytes) { out.u32(static_cast<uint32_t>(bytes.size())).raw(bytes); }

std::string frame(const ByteWriter& body) {
  return ByteWriter().u32(static_cast<uint32_t>(body.data().size())).raw(body.data()).take();
}

std::string node_path(uint64_t i) { return fmt::format("/b{:06}", i); }

std::string create_request(uint32_t request, const std::string& path, std::string_view value) {
  ByteWriter body;
  body.u32(request).u32(kCreate);
  put_buffer(body, path);
  put_buffer(body, value);
  body.u32(1).u32(kAllPermissions);
  put_buffer(body, "world");
  put_buffer(body, "anyone");
  return frame(body.u32(0));
}

std::string set_request(uint32_t request, const std::string& path, std::string_view value) {
  ByteWriter body;
  body.u32(request).u32(kSetData);
  put_buffer(body, path);
  put_buffer(body, value);
  return frame(body.u32(kAnyVersion));
}

Status failed(const std::string& what) { return Status(Code::kUnavailable, "BENCH_FAILED", "ZooKeeper: " + what); }

int open_socket(uint16_t port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return fd;
  ::close(fd);
  return -1;
}

}  // namespace

Result<std::unique_ptr<ZooKeeper>> ZooKeeper::start(const Context& context) {
  if (!std::filesystem::exists(kJar) || !installed("java")) {
    return fail(Code::kNotFound, "ZOOKEEPER_MISSING", "ZooKeeper is not installed (Debian: apt-get install zookeeper)");
  }
  std::unique_ptr<ZooKeeper> out(new ZooKeeper);
  out->directory_ = new_directory(context, "zookeeper");
  out->port_ = free_port();
  // The jar is a link to the one with the version in its name.
  out->version_ = std::filesystem::canonical(kJar).stem().string();
  const std::string config = out->directory_ + "/zoo.cfg";
  std::ofstream(config) << "tickTime=2000\ndataDir=" << out->directory_ << "/data\nclientPort=" << out->port_
                        << "\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\nmaxSessionTimeout="
                        << kSessionTimeoutMs << "\n";
  std::filesystem::create_directories(out->directory_ + "/data");
  UCCP_TRY(Child child, Child::start({"/usr/bin/env", "java", "-Xmx1g", "-cp", kJar,
                                      "org.apache.zookeeper.server.quorum.QuorumPeerMain", config},
                                     out->directory_ + "/log"));
  out->child_.emplace(std::move(child));
  for (const auto begin = Clock::now(); Clock::now() - begin < kReadyMax; std::this_thread::sleep_for(kPoll)) {
    if (out->child_->ended()) break;
    if (ZooKeeperLoad::connect(out->port_, 1)) return out;
  }
  return fail(Code::kUnavailable, "SERVER_NOT_READY",
              "ZooKeeper does not answer; its log ends with: " + read_text(out->directory_ + "/log").value_or(""));
}

ZooKeeper::~ZooKeeper() {
  child_.reset();
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

struct ZooKeeperLoad::Connection {
  int fd = -1;
  std::string out, in;
  size_t sent = 0;
  uint32_t requests = 0;
  std::deque<Clock::time_point> at_work;  // answers come in the order of requests

  ~Connection() {
    if (fd >= 0) ::close(fd);
  }
  bool flush() {
    while (sent < out.size()) {
      const ssize_t count = ::send(fd, out.data() + sent, out.size() - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (count < 0) return errno == EAGAIN || errno == EINTR;
      sent += static_cast<size_t>(count);
    }
    out.clear();
    sent = 0;
    return true;
  }
  bool fill() {
    char buffer[65'536];
    const ssize_t count = ::recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (count < 0) return errno == EAGAIN || errno == EINTR;
    in.append(buffer, static_cast<size_t>(count));
    return count > 0;
  }
};

ZooKeeperLoad::ZooKeeperLoad() = default;
ZooKeeperLoad::~ZooKeeperLoad() = default;

Result<std::unique_ptr<ZooKeeperLoad>> ZooKeeperLoad::connect(uint16_t port, size_t connections) {
  std::unique_ptr<ZooKeeperLoad> load(new ZooKeeperLoad);
  for (size_t i = 0; i < connections; ++i) {
    auto connection = std::make_unique<Connection>();
    connection->fd = open_socket(port);
    if (connection->fd < 0) return fail(failed(std::string("connecting: ") + std::strerror(errno)));
    ByteWriter hello;
    hello.u32(0).u64(0).u32(kSessionTimeoutMs).u64(0);
    put_buffer(hello, std::string(16, '\0'));
    connection->out = frame(hello.u8(0));
    connection->at_work.push_back(Clock::now());
    load->connections_.push_back(std::move(connection));
  }
  size_t welcomed = 0;
  const auto welcome = [&](Connection&, uint32_t, Clock::time_point) { ++welcomed; };
  for (const auto begin = Clock::now(); welcomed < connections;) {
    if (!load->turn(100, welcome) || Clock::now() - begin > kReadyMax) {
      return fail(failed("no session was granted"));
    }
  }
  return load;
}

template <typename Answered>
bool ZooKeeperLoad::turn(int wait_ms, Answered&& answered) {
  std::vector<pollfd> polled;
  for (const auto& connection : connections_) {
    if (!connection->flush()) return false;
    const short events = connection->out.empty() ? POLLIN : POLLIN | POLLOUT;
    polled.push_back({connection->fd, events, 0});
  }
  if (::poll(polled.data(), polled.size(), wait_ms) < 0) return errno == EINTR;
  for (size_t i = 0; i < polled.size(); ++i) {
    if ((polled[i].revents & (POLLIN | POLLHUP | POLLERR)) == 0) continue;
    Connection& connection = *connections_[i];
    if (!connection.fill()) return false;
    size_t at = 0;
    while (connection.in.size() - at >= 4) {
      const uint32_t bytes = ByteReader(std::string_view(connection.in).substr(at)).u32();
      if (connection.in.size() - at - 4 < bytes) break;
      ByteReader reply(std::string_view(connection.in).substr(at + 4, bytes));
      at += 4 + bytes;
      if (connection.at_work.empty()) return false;
      // The answer to the greeting has no header, and says nothing that matters here.
      const bool greeting = connection.requests == 0;
      if (!greeting) reply.raw(kReplyHeaderBytes - 4);
      const uint32_t error = greeting ? 0 : reply.u32();
      const auto begun = connection.at_work.front();
      connection.at_work.pop_front();
      answered(connection, reply.ok() ? error : UINT32_MAX, begun);
    }
    connection.in.erase(0, at);
  }
  return true;
}

Status ZooKeeperLoad::create(size_t nodes, size_t value_bytes) {
  Connection& connection = *connections_.front();
  for (size_t i = 0; i < nodes; ++i) {
    connection.out += create_request(++connection.requests, node_path(i), value_of(i, value_bytes));
    connection.at_work.push_back(Clock::now());
  }
  size_t done = 0, refused = 0;
  for (const auto begin = Clock::now(); done < nodes;) {
    const auto count = [&](Connection&, uint32_t error, Clock::time_point) {
      ++done;
      refused += error != 0 ? 1 : 0;
    };
    if (!turn(100, count) || Clock::now() - begin > kReadyMax) return failed("creating nodes: the connection is lost");
  }
  return refused == 0 ? Status::ok() : failed(fmt::format("{} of {} nodes were not created", refused, nodes));
}

LoadResult ZooKeeperLoad::set(const Plan& plan, size_t nodes, size_t value_bytes) {
  std::vector<std::string> values;
  for (uint64_t i = 0; i < 64; ++i) values.push_back(value_of(i, value_bytes));
  uint64_t next = 0;
  const auto send = [&](Connection& connection) {
    connection.out += set_request(++connection.requests, node_path(next % nodes), values[next % values.size()]);
    ++next;
    connection.at_work.push_back(Clock::now());
  };
  for (size_t i = 0; i < plan.in_flight; ++i) send(*connections_[i % connections_.size()]);
  LoadResult result;
  auto begin = Clock::now();
  bool measuring = false, running = true;
  double own_cpu = 0, server_cpu = 0;
  size_t at_work = plan.in_flight;
  const auto take = [&](Connection& connection, uint32_t error, Clock::time_point begun) {
    --at_work;
    if (error != 0) {
      ++result.failed;
      result.first_error = fmt::format("error {}", static_cast<int32_t>(error));
    } else if (measuring && running) {
      ++result.ok;
      result.latency.record(std::chrono::nanoseconds(Clock::now() - begun).count());
    }
    if (!running) return;
    ++at_work;
    send(connection);
  };
  while (at_work > 0) {
    if (!turn(100, take)) {
      ++result.failed;
      result.first_error = "a connection is lost";
      break;
    }
    if (!measuring && since(begin) >= plan.warm_up_s) {
      measuring = true;
      begin = Clock::now();
      own_cpu = own_cpu_seconds();
      server_cpu = cpu_seconds_of(plan.server_pids);
    } else if (measuring && running && since(begin) >= plan.seconds) {
      running = false;
      result.seconds = since(begin);
      result.generator_cores = (own_cpu_seconds() - own_cpu) / result.seconds;
      result.server_cores = (cpu_seconds_of(plan.server_pids) - server_cpu) / result.seconds;
    }
  }
  result.all_ok = result.ok;
  return result;
}

}  // namespace uccp::bench
