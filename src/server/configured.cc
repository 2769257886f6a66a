// `uccp --config FILE`: a node whose ports, certificates and cluster come from its configuration.
#include <algorithm>

#include "base/log.h"
#include "runtime/posix_file_system.h"
#include "runtime/real_clock.h"
#include "server/cluster_member.h"
#include "server/dev.h"
#include "server/node_files.h"
#include "server/node_names.h"
#include "server/process.h"

namespace uccp::server {
namespace {

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  for (size_t at = 0; at < text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    if (comma > at) parts.push_back(text.substr(at, comma - at));
    at = comma + 1;
  }
  return parts;
}

// Founders, addresses to join at, and who this node is. Without any of them it is a cluster of one.
Status read_cluster(const Config& config, const NodeKeys& keys, ServerOptions& options) {
  ClusterOptions& cluster = options.cluster;
  cluster.enabled = config.is_set("initial_members") || config.is_set("join_address") || config.is_set("cluster_id");
  if (!cluster.enabled) return Status::ok();
  const std::string name = "n" + std::to_string(options.node.value);
  options.cluster_id = config.is_set("cluster_id") ? config.text("cluster_id") : keys.cluster_id;
  if (keys.cluster_id != options.cluster_id || keys.node_id != options.node) {
    return Status(Code::kFailedPrecondition, "NODE_CERTIFICATE_MISMATCH",
                  "the node certificate in " + options.data_dir + "/pki is that of n" +
                      std::to_string(keys.node_id.value) + " of cluster " + keys.cluster_id +
                      ", and the configuration says " + name + " of cluster " + options.cluster_id +
                      "; use the directory that was prepared for this node");
  }
  cluster.listen_host = options.host;
  cluster.advertise_host = config.is_set("advertise_host") ? config.text("advertise_host") : options.host;
  if (cluster.advertise_host == "0.0.0.0" || cluster.advertise_host == "::") {
    return Status(Code::kInvalid, "CONFIG_INVALID",
                  "listen_host is " + options.host + ", so advertise_host must say how other nodes reach this one");
  }
  cluster.raft_port = static_cast<uint16_t>(config.integer("raft_port"));
  cluster.identity = keys.node;
  cluster.ca_pem = keys.ca_pem;
  UCCP_TRY(cluster.initial_members, parse_members(config.text("initial_members")));
  for (const std::string& address : split(config.text("join_address"))) {
    UCCP_RETURN_IF_ERROR(parse_address(address));
    cluster.join_addresses.push_back(address);
  }
  const bool founder = cluster.initial_members.contains(options.node);
  if (!founder && cluster.join_addresses.empty()) {
    if (!cluster.initial_members.empty()) {
      return Status(Code::kInvalid, "CONFIG_INVALID",
                    name + " is not one of initial_members, and join_address is unset: it would never get a member");
    }
    cluster.initial_members[options.node] = {cluster.advertise_host, cluster.raft_port};
  }
  return Status::ok();
}

}  // namespace

int run_configured(const Config& config) {
  StopSignal stop;
  runtime::RealClock clock;
  runtime::PosixFileSystem files;
  const auto node = node_id(config.text("node_id"));
  if (!node) return report(node.error());
  ServerOptions options;
  options.node = *node;
  options.data_dir = absolute(config.text("raft_dir"));
  if (Status status = files.make_directories(options.data_dir); !status.is_ok()) return report(status);
  options.host = config.text("listen_host");
  options.metrics_host = config.text("metrics_host");
  options.grpc_port = static_cast<uint16_t>(config.integer("grpc_port"));
  options.https_port = static_cast<uint16_t>(config.integer("https_port"));
  options.metrics_port = static_cast<uint16_t>(config.integer("metrics_port"));
  if (config.boolean("enable_etcd")) options.etcd_port = static_cast<uint16_t>(config.integer("etcd_port"));
  else options.etcd_port.reset();
  if (config.boolean("enable_dns")) options.dns_port = static_cast<uint16_t>(config.integer("dns_port"));
  else options.dns_port.reset();
  options.worker_lease_ms = config.duration_ms("worker_lease");
  runtime::DevPkiOptions pki_options;
  pki_options.directory = options.data_dir + "/pki";
  pki_options.cluster_id = config.is_set("cluster_id") ? config.text("cluster_id") : "uccp";
  pki_options.node = *node;
  pki_options.lifetime_s = std::max<int64_t>(1, config.duration_ms("certificate_lifetime") / 1000);
  if (config.is_set("advertise_host")) pki_options.hosts = {config.text("advertise_host")};
  auto keys = load_keys(files, clock, pki_options.directory, pki_options);
  if (!keys) return report(keys.error());
  for (const auto& [key, pem] : {std::pair{"tls_cert_file", &keys->server.certificate_pem},
                                 {"tls_key_file", &keys->server.key_pem},
                                 {"tls_ca_file", &keys->ca_pem}}) {
    if (!config.is_set(key)) continue;
    auto content = read_file(files, config.text(key), 1u << 20);
    if (!content) return report(content.error());
    *pem = std::move(*content);
  }
  options.certificate_pem = keys->server.certificate_pem;
  options.key_pem = keys->server.key_pem;
  options.client_ca_pem = keys->ca_pem;
  options.token_key_pem = keys->token_key_pem;
  options.certificates = certificate_sources(config, pki_options);
  if (Status status = read_cluster(config, *keys, options); !status.is_ok()) return report(status);
  if (options.cluster.enabled) options.certificates.pki.cluster_id = options.cluster_id;
  options.rest_takes_certificates = config.boolean("enable_mtls");
  warn_of_unused(config);
  auto server = Server::start(options, config, [&](Status why) { stop.stop(std::move(why)); });
  if (!server) return report(server.error());
  const ServerEndpoints& at = (*server)->endpoints();
  const std::string json = options.data_dir + "/node.json";
  if (Status status = write_file_atomically(files, json, node_json(*node, at, options.data_dir)); !status.is_ok()) {
    return report(status);
  }
  log::info("serving", {{"grpc", at.grpc},
                        {"https", at.https},
                        {"metrics", at.metrics},
                        {"etcd", at.etcd},
                        {"dns", at.dns},
                        {"raft", at.raft}});
  const auto failure = stop.wait();
  (void)files.remove(json);
  if (failure) (void)report(*failure);
  return finish(failure, **server);
}

}  // namespace uccp::server
