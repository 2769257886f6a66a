#include "bench/message_servers.h"

#include <fmt/format.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "bench/message_load.h"

namespace uccp::bench {
namespace {

constexpr auto kPoll = std::chrono::milliseconds(50);
constexpr auto kReadyLimit = std::chrono::seconds(30);

std::string first_line_of(const Context& context, std::vector<std::string> argv, const std::string& name) {
  const std::string log = context.work_dir + "/" + name + "-version.txt";
  auto child = Child::start(std::move(argv), log);
  while (child && !child->ended()) std::this_thread::sleep_for(kPoll);
  const std::string text = read_text(log).value_or("");
  return text.substr(0, text.find('\n'));
}

std::string keys_of(const UccpCluster& pki, size_t node) { return fmt::format("{}/n{}/pki", pki.directory(), node); }

}  // namespace

Result<std::unique_ptr<NatsServers>> NatsServers::start(const Context& context, const UccpCluster& pki) {
  if (!installed("nats-server")) {
    return fail(Code::kNotFound, "NATS_MISSING",
                "nats-server is not installed (go install github.com/nats-io/nats-server/v2@v2.12.2)");
  }
  auto servers = std::make_unique<NatsServers>();
  servers->version_ = first_line_of(context, {"/usr/bin/env", "nats-server", "--version"}, "nats");
  const std::string directory = new_directory(context, "nats");
  std::vector<std::string> routes;
  for (size_t node = 1; node <= pki.size(); ++node) routes.push_back(fmt::format("127.0.0.1:{}", free_port()));
  for (size_t node = 1; node <= pki.size(); ++node) {
    servers->targets_.push_back(fmt::format("127.0.0.1:{}", free_port()));
    const std::string keys = keys_of(pki, node);
    const std::string config = fmt::format("{}/n{}.conf", directory, node);
    std::ofstream out(config);
    out << "server_name: n" << node << "\nlisten: \"" << servers->targets_.back() << "\"\n"
        << "jetstream { store_dir: \"" << directory << "/n" << node << "\", sync_interval: always }\n"
        << "tls { cert_file: \"" << keys << "/node.crt\", key_file: \"" << keys << "/node.key\", ca_file: \"" << keys
        << "/ca.crt\", verify: true, handshake_first: true, timeout: 10 }\n";
    if (pki.size() > 1) {
      out << "cluster { name: bench, listen: \"" << routes[node - 1] << "\", routes: [";
      for (const std::string& route : routes) out << "\"nats-route://" << route << "\",";
      out << "] }\n";
    }
    out.close();
    UCCP_TRY(Child child,
             Child::start({"/usr/bin/env", "nats-server", "-c", config}, fmt::format("{}/n{}.log", directory, node)));
    servers->children_.push_back(std::move(child));
  }
  const auto until = std::chrono::steady_clock::now() + kReadyLimit;
  while (true) {
    const auto info = nats_request(servers->targets_.front(), pki.tls(), "$JS.API.INFO", "");
    if (info) return servers;
    if (std::chrono::steady_clock::now() > until) return std::unexpected(info.error());
    std::this_thread::sleep_for(kPoll);
  }
}

std::vector<int> NatsServers::pids() const {
  std::vector<int> pids;
  for (const Child& child : children_) pids.push_back(child.pid());
  return pids;
}

Status NatsServers::make_stream(const std::string& name, const TlsIdentity& tls) const {
  const auto until = std::chrono::steady_clock::now() + kReadyLimit;
  while (true) {
    // The duplicate window costs memory for ids alone, and these messages have none.
    const auto made = nats_request(
        targets_.front(), tls, "$JS.API.STREAM.CREATE." + name,
        fmt::format(R"({{"name":"{0}","subjects":["{0}"],"storage":"file","num_replicas":{1},"discard":"old"}})", name,
                    targets_.size()));
    if (made) return Status::ok();
    // Right after its start a cluster has not yet found all its nodes.
    if (std::chrono::steady_clock::now() > until) return made.error();
    std::this_thread::sleep_for(kPoll);
  }
}

Result<std::unique_ptr<RedisServer>> RedisServer::start(const Context& context, const UccpCluster& pki) {
  if (!installed("redis-server")) {
    return fail(Code::kNotFound, "REDIS_MISSING",
                "redis-server is not installed (Debian: apt-get install redis-server)");
  }
  auto server = std::make_unique<RedisServer>();
  server->version_ = first_line_of(context, {"/usr/bin/env", "redis-server", "--version"}, "redis");
  const std::string directory = new_directory(context, "redis");
  const uint16_t port = free_port();
  server->target_ = fmt::format("127.0.0.1:{}", port);
  const std::string keys = keys_of(pki, 1);
  UCCP_TRY(Child child, Child::start({"/usr/bin/env",
                                      "redis-server",
                                      "--port",
                                      "0",
                                      "--tls-port",
                                      std::to_string(port),
                                      "--bind",
                                      "127.0.0.1",
                                      "--dir",
                                      directory,
                                      "--appendonly",
                                      "yes",
                                      "--appendfsync",
                                      "always",
                                      "--save",
                                      "",
                                      "--tls-cert-file",
                                      keys + "/node.crt",
                                      "--tls-key-file",
                                      keys + "/node.key",
                                      "--tls-ca-cert-file",
                                      keys + "/ca.crt",
                                      "--tls-auth-clients",
                                      "yes"},
                                     directory + "/log"));
  server->children_.push_back(std::move(child));
  return server;
}

uint64_t bytes_written(const std::vector<int>& pids) {
  uint64_t bytes = 0;
  for (const int pid : pids) {
    std::ifstream in(fmt::format("/proc/{}/io", pid));
    std::string name;
    uint64_t value = 0;
    while (in >> name >> value) {
      if (name == "write_bytes:") bytes += value;
    }
  }
  return bytes;
}

}  // namespace uccp::bench
