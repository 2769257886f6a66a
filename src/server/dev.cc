#include "server/dev.h"

#include <fmt/format.h>
#include <unistd.h>
#include <algorithm>

#include <cstdio>
#include <filesystem>

#include "base/json.h"
#include "base/log.h"
#include "runtime/posix_file_system.h"
#include "runtime/real_clock.h"
#include "server/agent_child.h"
#include "server/process.h"

namespace uccp::server {
namespace {

constexpr int64_t kWorkerWaitMs = 5'000;
// A development node has one worker, and nobody else could take over its tasks: its lease may be long.
constexpr int64_t kDevWorkerLeaseMs = 3'600'000;
// The context file that uccp-cli takes when none is named.
constexpr std::string_view kFoundByItself = "data/dev.json";

struct ContextFile {
  const ServerEndpoints& endpoints;
  std::string ca, cert, key, token;
  std::string objects;  // of the agent, seen from the file
};

// dev.json and agent.json: a node, and `nodes` with the same node.
std::string context_json(const ContextFile& context) {
  JsonWriter json;
  const auto fields = [&] {
    json.key("id").value("n1");
    json.key("grpc").value(context.endpoints.grpc).key("https").value(context.endpoints.https);
    json.key("metrics").value(context.endpoints.metrics);
    if (!context.endpoints.etcd.empty()) json.key("etcd").value(context.endpoints.etcd);
    if (!context.endpoints.dns.empty()) json.key("dns").value(context.endpoints.dns);
    json.key("ca").value(context.ca).key("cert").value(context.cert).key("key").value(context.key);
    if (!context.token.empty()) json.key("token").value(context.token);
    json.key("pid").value(static_cast<int64_t>(::getpid()));
  };
  json.begin_object();
  fields();
  json.key("clusterId").value(context.endpoints.cluster_id);
  if (!context.objects.empty()) json.key("objects").value(context.objects);
  json.key("nodes").begin_array().begin_object();
  fields();
  json.end_object().end_array().end_object();
  return json.take() + "\n";
}

// As somebody in the working directory would type it, if that is shorter.
std::string short_path(const std::filesystem::path& path) {
  std::error_code error;
  const auto here = std::filesystem::current_path(error);
  if (error) return path.string();  // the working directory was removed
  const std::string relative = std::filesystem::proximate(path, here, error).string();
  return error || relative.empty() || relative.starts_with("..") ? path.string() : relative;
}

// Any free ones, or those of the configuration; doors that are to stay closed have none.
void take_ports(const Config& config, bool any_free, ServerOptions& options) {
  const auto port = [&](const char* key) {
    return any_free ? uint16_t{0} : static_cast<uint16_t>(config.integer(key));
  };
  options.grpc_port = port("grpc_port");
  options.https_port = port("https_port");
  options.metrics_port = port("metrics_port");
  options.etcd_port = port("etcd_port");
  options.dns_port = port("dns_port");
  if (!config.boolean("enable_etcd")) options.etcd_port.reset();
  if (!config.boolean("enable_dns")) options.dns_port.reset();
}

void print_welcome(const ServerEndpoints& at, const std::string& path) {
  const std::string dev_json = short_path(path);
  std::string cli = short_path(std::filesystem::read_symlink("/proc/self/exe").parent_path() / "uccp-cli");
  if (dev_json != kFoundByItself) cli += " --context-file " + dev_json;
  fmt::print(
      "\nUCCP is ready.\n\n"
      "  REST     https://{}/api/v1\n"
      "  gRPC     {}\n"
      "  etcd     {}\n"
      "  DNS      {}\n"
      "  metrics  http://{}/metrics\n"
      "  context  {}   (addresses, certificates and a token)\n\n"
      "Try:\n\n"
      "  {} task submit --follow -- sh -c 'echo hello from $(hostname)'\n"
      "  {} service register web 127.0.0.1 8080\n"
      "  {} worker list\n\n"
      "Ctrl-C stops everything.\n",
      at.https, at.grpc, at.etcd.empty() ? "closed" : at.etcd, at.dns.empty() ? "closed" : at.dns, at.metrics, dev_json,
      cli, cli, cli);
  std::fflush(stdout);
}

}  // namespace

int run_dev(const DevOptions& dev, const Config& config) {
  StopSignal stop;
  runtime::RealClock clock;
  runtime::PosixFileSystem files;
  const std::string dir = absolute(dev.data_dir);
  const std::string dev_json = dir + "/dev.json";
  const std::string agent_json = dir + "/agent.json";
  if (Status status = files.make_directories(dir); !status.is_ok()) return report(status);

  runtime::DevPkiOptions pki_options;
  pki_options.directory = dir + "/pki";
  pki_options.cluster_id = "dev";
  pki_options.lifetime_s = std::max<int64_t>(1, config.duration_ms("certificate_lifetime") / 1000);
  const auto pki = runtime::ensure_dev_pki(files, clock, pki_options);
  if (!pki) return report(pki.error());
  ServerOptions options;
  options.data_dir = dir;
  options.host = config.text("listen_host");
  options.metrics_host = config.text("metrics_host");
  take_ports(config, dev.auto_ports, options);
  options.certificate_pem = pki->server.certificate_pem;
  options.key_pem = pki->server.key_pem;
  options.client_ca_pem = pki->ca.certificate_pem;
  options.token_key_pem = pki->token_key_pem;
  options.certificates = certificate_sources(config, pki_options);
  options.certificates.certificate_file.clear();
  options.certificates.key_file.clear();
  options.certificates.authority_file.clear();
  const bool lease_named = config.values().find("worker_lease")->second.source != ConfigSource::kDefault;
  options.worker_lease_ms = lease_named ? config.duration_ms("worker_lease") : kDevWorkerLeaseMs;
  options.agent_context_file = agent_json;
  warn_of_unused(config);
  auto server = Server::start(options, config, [&](Status why) { stop.stop(std::move(why)); });
  if (!server) return report(server.error());
  // Removed only now that the directory is known to be ours.
  (void)files.remove(dev_json);
  const ServerEndpoints& at = (*server)->endpoints();
  const auto token = admin_token(pki->token_key_pem, clock);
  if (!token) return report(token.error());
  const auto& paths = pki->paths;
  Status written = write_file_atomically(
      files, agent_json, context_json({at, paths.ca_certificate, paths.agent_certificate, paths.agent_key, "", ""}));
  if (!written.is_ok()) return report(written);
  const std::string bin = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  AgentChild agent({bin + "/uccp-agent", dir + "/agent", agent_json, dir + "/agent.log", config.text("ray_address")});
  if (dev.start_agent) {
    agent.start();
    if (!(*server)->wait_for_worker(kWorkerWaitMs)) {
      log::warn("the agent has not connected yet; tasks wait for it", {{"log", dir + "/agent.log"}});
    }
  }
  written = write_file_atomically(
      files, dev_json,
      context_json({at, paths.ca_certificate, paths.admin_certificate, paths.admin_key, *token, "agent/objects.json"}));
  if (!written.is_ok()) return report(written);
  print_welcome(at, dev_json);

  const auto failure = stop.wait();
  (void)files.remove(dev_json);
  if (!failure) {
    fmt::print("\nstopping\n");
    std::fflush(stdout);
    agent.stop();
    (*server)->stop_local_workers();
  }
  return finish(failure, **server);
}

}  // namespace uccp::server
