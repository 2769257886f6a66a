#include "server/node_files.h"

#include <fmt/format.h>
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <optional>
#include <set>

#include "base/bytes.h"
#include "base/json.h"
#include "runtime/os_random.h"
#include "runtime/posix_file_system.h"
#include "server/authenticator.h"
#include "server/certificate_side.h"
#include "server/node_names.h"
#include "server/port_chooser.h"
#include "server/process.h"

namespace uccp::server {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kFileBytesMax = 1u << 20;
struct NodePorts {
  uint16_t grpc = 0, https = 0, raft = 0, metrics = 0, etcd = 0, dns = 0;
};

Result<NodePorts> chosen_ports(PortChooser& chooser) {
  NodePorts ports;
  for (uint16_t* port : {&ports.grpc, &ports.https, &ports.raft, &ports.metrics, &ports.etcd, &ports.dns}) {
    UCCP_TRY(*port, chooser.next());
  }
  return ports;
}

NodePorts fixed_ports(NodeId node) {
  const auto k = static_cast<uint16_t>(node.value - 1);
  return {static_cast<uint16_t>(50'000 + 10 * k), static_cast<uint16_t>(8443 + 10 * k),
          static_cast<uint16_t>(50'061 + 10 * k), static_cast<uint16_t>(9100 + 10 * k),
          static_cast<uint16_t>(2379 + 10 * k),   static_cast<uint16_t>(8600 + 10 * k)};
}

std::string name_of(NodeId node) { return "n" + std::to_string(node.value); }

// What a configuration file that we wrote says; empty if there is none.
Result<std::map<std::string, std::string>> read_config(FileSystem& files, const std::string& path) {
  std::map<std::string, std::string> values;
  UCCP_TRY(const bool exists, files.exists(path));
  if (!exists) return values;
  UCCP_TRY(const std::string yaml, read_file(files, path, kFileBytesMax));
  UCCP_TRY(const Config config, Config::load(yaml, path, {}, {}));
  for (const auto& [key, value] : config.values()) values[key] = value.text;
  return values;
}

std::vector<NodeId> nodes_in(const std::string& directory) {
  std::set<NodeId> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    const NodeId node = cluster::parse_node_name(entry.path().filename().string());
    if (node && fs::exists(entry.path() / "uccp.yaml", error)) found.insert(node);
  }
  return {found.begin(), found.end()};
}

Result<std::string> ensure_cluster_id(FileSystem& files, const ClusterInitOptions& options) {
  const std::string path = options.directory + "/cluster-id";
  UCCP_TRY(const bool exists, files.exists(path));
  if (exists) {
    UCCP_TRY(std::string kept, read_file(files, path, 4096));
    while (!kept.empty() && kept.back() == '\n') kept.pop_back();
    if (!options.cluster_id.empty() && options.cluster_id != kept) {
      return fail(Code::kFailedPrecondition, "CLUSTER_MISMATCH",
                  options.directory + " belongs to cluster " + kept + ", not to " + options.cluster_id);
    }
    return kept;
  }
  runtime::SystemRandom random;
  std::string made = options.cluster_id.empty() ? to_hex(ByteWriter().u64(random.next()).data()) : options.cluster_id;
  UCCP_RETURN_IF_ERROR(write_file_atomically(files, path, made + "\n"));
  return made;
}

// Certificates of one node from the cluster's authority, whose private key does not stay in the node's directory.
Status issue_keys(FileSystem& files, const Clock& clock, const std::string& directory, const std::string& cluster_id,
                  NodeId node, const std::string& host) {
  const auto shared = runtime::dev_pki_paths(directory + "/pki");
  const auto own = runtime::dev_pki_paths(directory + "/" + name_of(node) + "/pki");
  UCCP_RETURN_IF_ERROR(files.make_directories(directory + "/" + name_of(node) + "/pki"));
  // A node that runs keeps these files itself, and none may start while they are made.
  const auto lock = runtime::DirectoryLock::acquire(directory + "/" + name_of(node));
  if (!lock && lock.error().reason() == "DIRECTORY_IN_USE") return Status::ok();
  if (!lock) return lock.error();
  for (const auto& [from, to] : {std::pair{shared.ca_key, own.ca_key},
                                 {shared.ca_certificate, own.ca_certificate},
                                 {shared.token_key, own.token_key}}) {
    UCCP_TRY(const std::string content, read_file(files, from, kFileBytesMax));
    UCCP_RETURN_IF_ERROR(write_file_atomically(files, to, content));
  }
  runtime::DevPkiOptions options;
  options.directory = directory + "/" + name_of(node) + "/pki";
  options.cluster_id = cluster_id;
  options.node = node;
  options.hosts = {host};
  UCCP_TRY(const runtime::DevPki made, runtime::ensure_dev_pki(files, clock, options));
  // Nodes sign for themselves and for agents once they run.
  UCCP_TRY(const std::string sealed, seal_authority_key(made.ca, made.token_key_pem));
  UCCP_RETURN_IF_ERROR(write_file_atomically(files, own.ca_sealed, sealed));
  for (const std::string& path :
       {own.ca_key, own.admin_certificate, own.admin_key, own.agent_certificate, own.agent_key}) {
    UCCP_RETURN_IF_ERROR(files.remove(path));
  }
  return Status::ok();
}

// A cluster replaces its authority while it runs: the nodes' directories then have a newer one than the shared folder,
// which takes it over, and with it new certificates for the admin and the agents.
Status adopt_authority(FileSystem& files, const std::string& directory) {
  const auto shared = runtime::dev_pki_paths(directory + "/pki");
  const auto present = read_file(files, shared.ca_certificate, kFileBytesMax);
  if (!present) return Status::ok();
  UCCP_TRY(auto newest, runtime::inspect_certificate(*present));
  std::string ca_pem = *present, sealed;
  for (const NodeId node : nodes_in(directory)) {
    const auto own = runtime::dev_pki_paths(directory + "/" + name_of(node) + "/pki");
    const auto pem = read_file(files, own.ca_certificate, kFileBytesMax);
    const auto key = read_file(files, own.ca_sealed, kFileBytesMax);
    const auto info = pem ? runtime::inspect_certificate(*pem) : fail(pem.error());
    if (!info || !key || *pem == ca_pem) continue;
    const bool newer = info->not_before.us > newest.not_before.us;
    // The same one, and others beside it that came or went.
    const bool same = info->fingerprint == newest.fingerprint;
    if (!newer && !same) continue;
    newest = *info;
    ca_pem = *pem;
    sealed = *key;
  }
  if (sealed.empty()) return Status::ok();
  UCCP_TRY(const std::string token_key, read_file(files, shared.token_key, kFileBytesMax));
  UCCP_TRY(const std::string key, open_authority_key(ca_pem, sealed, token_key));
  return runtime::replace_authority(files, {ca_pem, key}, shared);
}

struct PlannedNode {
  NodeId node;
  NodePorts ports;
};

std::string members_text(const std::vector<PlannedNode>& nodes, const std::string& host) {
  std::string out;
  for (const PlannedNode& planned : nodes) {
    out += fmt::format("{}{}={}:{}", out.empty() ? "" : ",", name_of(planned.node), host, planned.ports.raft);
  }
  return out;
}

Status write_config(FileSystem& files, const ClusterInitOptions& options, const std::string& cluster_id,
                    const PlannedNode& planned, const std::string& members, const std::string& join) {
  const std::string dir = options.directory + "/" + name_of(planned.node);
  return write_file_atomically(
      files, dir + "/uccp.yaml",
      fmt::format("# Written by uccp cluster. Every key: uccp config explain\n"
                  "node_id: {}\ncluster_id: \"{}\"\nraft_dir: \"{}\"\nlisten_host: {}\nadvertise_host: {}\n"
                  "grpc_port: {}\nhttps_port: {}\nraft_port: {}\nmetrics_port: {}\netcd_port: {}\ndns_port: {}\n{}{}",
                  name_of(planned.node), cluster_id, dir, options.host, options.host, planned.ports.grpc,
                  planned.ports.https, planned.ports.raft, planned.ports.metrics, planned.ports.etcd, planned.ports.dns,
                  members.empty() ? "" : "initial_members: \"" + members + "\"\n",
                  join.empty() ? "" : "join_address: \"" + join + "\"\n"));
}

Result<std::string> ensure_authority(FileSystem& files, const Clock& clock, const ClusterInitOptions& options) {
  UCCP_RETURN_IF_ERROR(files.make_directories(options.directory));
  UCCP_TRY(std::string cluster_id, ensure_cluster_id(files, options));
  UCCP_RETURN_IF_ERROR(adopt_authority(files, options.directory));
  runtime::DevPkiOptions pki;
  pki.directory = options.directory + "/pki";
  pki.cluster_id = cluster_id;
  UCCP_RETURN_IF_ERROR(runtime::ensure_dev_pki(files, clock, pki));
  return cluster_id;
}

// All gRPC addresses of the nodes that have a configuration, but for one.
Result<std::string> addresses_of_others(FileSystem& files, const std::string& directory, NodeId self) {
  std::string out;
  for (const NodeId node : nodes_in(directory)) {
    if (node == self) continue;
    UCCP_TRY(auto values, read_config(files, directory + "/" + name_of(node) + "/uccp.yaml"));
    out += (out.empty() ? "" : ",") + values["advertise_host"] + ":" + values["grpc_port"];
  }
  return out;
}

Result<google::protobuf::Struct> read_json(FileSystem& files, const std::string& path) {
  UCCP_TRY(const std::string text, read_file(files, path, kFileBytesMax));
  google::protobuf::Struct object;
  if (!google::protobuf::util::JsonStringToMessage(text, &object).ok()) {
    return fail(Code::kCorruption, "JSON_INVALID", path + " is no JSON object");
  }
  return object;
}

Status plan_nodes(const ClusterInitOptions& options, std::vector<PlannedNode>& nodes) {
  std::optional<PortChooser> chooser;
  if (options.auto_ports) {
    chooser.emplace(PortChooserOptions{.host = options.host, .owner = absolute(options.directory), .anew = true});
  }
  for (int k = 1; k <= options.nodes; ++k) {
    const NodeId node(static_cast<uint64_t>(k));
    nodes.push_back({node, fixed_ports(node)});
    if (chooser) {
      UCCP_TRY(nodes.back().ports, chosen_ports(*chooser));
    }
  }
  return Status::ok();
}

}  // namespace

Status init_cluster(FileSystem& files, const Clock& clock, const ClusterInitOptions& options) {
  if (options.nodes < 1 || options.nodes > 63) return Status(Code::kInvalid, "USAGE", "--nodes must be 1 to 63");
  UCCP_TRY(const std::string cluster_id, ensure_authority(files, clock, options));
  const std::vector<NodeId> present = nodes_in(options.directory);
  if (!present.empty()) {
    for (const NodeId node : present) {
      UCCP_RETURN_IF_ERROR(issue_keys(files, clock, options.directory, cluster_id, node, options.host));
    }
    return Status::ok();
  }
  std::vector<PlannedNode> nodes;
  UCCP_RETURN_IF_ERROR(plan_nodes(options, nodes));
  for (const PlannedNode& planned : nodes) {
    UCCP_RETURN_IF_ERROR(issue_keys(files, clock, options.directory, cluster_id, planned.node, options.host));
    std::string others;
    for (const PlannedNode& other : nodes) {
      if (other.node == planned.node) continue;
      others += fmt::format("{}{}:{}", others.empty() ? "" : ",", options.host, other.ports.grpc);
    }
    UCCP_RETURN_IF_ERROR(write_config(files, options, cluster_id, planned, members_text(nodes, options.host), others));
  }
  return Status::ok();
}

Status prepare_node(FileSystem& files, const Clock& clock, const ClusterInitOptions& options, NodeId node) {
  UCCP_TRY(const std::string cluster_id, ensure_authority(files, clock, options));
  UCCP_TRY(const std::string others, addresses_of_others(files, options.directory, node));
  if (others.empty()) {
    return Status(Code::kFailedPrecondition, "CLUSTER_MISSING",
                  "there is no cluster in " + options.directory + "; make one with uccp cluster init");
  }
  UCCP_RETURN_IF_ERROR(issue_keys(files, clock, options.directory, cluster_id, node, options.host));
  const std::string path = options.directory + "/" + name_of(node) + "/uccp.yaml";
  UCCP_TRY(const bool exists, files.exists(path));
  PlannedNode planned{node, {}};
  if (exists) {
    UCCP_TRY(auto values, read_config(files, path));
    const auto port = [&](const char* key) {
      return static_cast<uint16_t>(std::strtoul(values[key].c_str(), nullptr, 10));
    };
    planned.ports = {port("grpc_port"),    port("https_port"), port("raft_port"),
                     port("metrics_port"), port("etcd_port"),  port("dns_port")};
  } else {
    if (options.auto_ports) {
      PortChooser chooser({.host = options.host, .owner = absolute(options.directory)});
      UCCP_TRY(planned.ports, chosen_ports(chooser));
    } else {
      planned.ports = fixed_ports(node);
    }
  }
  // Not a founder, also if its id was one's: it joins with an empty directory.
  return write_config(files, options, cluster_id, planned, "", others);
}

Result<std::string> cluster_context(FileSystem& files, const Clock& clock, const std::string& directory) {
  const auto paths = runtime::dev_pki_paths(directory + "/pki");
  UCCP_RETURN_IF_ERROR(ensure_authority(files, clock, {.directory = directory}));
  UCCP_TRY(const std::string key, read_file(files, paths.token_key, kFileBytesMax));
  UCCP_TRY(const std::string token, admin_token(key, clock));
  UCCP_TRY(std::string cluster_id, read_file(files, directory + "/cluster-id", 4096));
  while (!cluster_id.empty() && cluster_id.back() == '\n') cluster_id.pop_back();
  std::vector<google::protobuf::Struct> nodes;
  for (const NodeId node : nodes_in(directory)) {
    const std::string path = directory + "/" + name_of(node) + "/node.json";
    UCCP_TRY(const bool exists, files.exists(path));
    if (!exists) continue;
    UCCP_TRY(auto object, read_json(files, path));
    // One that was killed leaves its file.
    const auto pid = static_cast<pid_t>(object.fields().at("pid").number_value());
    if (pid > 0 && ::kill(pid, 0) == 0) nodes.push_back(std::move(object));
  }
  if (nodes.empty()) return fail(Code::kUnavailable, "CLUSTER_NOT_RUNNING", "no node of " + directory + " serves");
  JsonWriter json;
  const auto text = [&](const google::protobuf::Struct& node, const char* name) {
    json.key(name).value(node.fields().at(name).string_value());
  };
  const auto addresses = [&](const google::protobuf::Struct& node) {
    for (const char* name : {"etcd", "dns"}) {
      if (node.fields().contains(name)) text(node, name);
    }
    for (const char* name : {"id", "grpc", "https", "metrics", "raft", "dataDir"}) text(node, name);
    json.key("pid").value(static_cast<int64_t>(node.fields().at("pid").number_value()));
  };
  json.begin_object();
  addresses(nodes.front());
  json.key("ca").value(paths.ca_certificate).key("cert").value(paths.admin_certificate);
  json.key("key").value(paths.admin_key).key("token").value(token);
  json.key("agentCert").value(paths.agent_certificate).key("agentKey").value(paths.agent_key);
  json.key("clusterId").value(cluster_id);
  json.key("nodes").begin_array();
  for (const auto& node : nodes) {
    json.begin_object();
    addresses(node);
    json.end_object();
  }
  json.end_array().end_object();
  return json.take() + "\n";
}

Result<NodeKeys> load_keys(FileSystem& files, const Clock& clock, const std::string& directory,
                           const runtime::DevPkiOptions& fallback) {
  const auto paths = runtime::dev_pki_paths(directory);
  UCCP_TRY(const bool has_authority, files.exists(paths.ca_certificate));
  UCCP_TRY(const bool can_issue, files.exists(paths.ca_key));
  NodeKeys keys;
  if (!has_authority || can_issue) {
    UCCP_TRY(auto made, runtime::ensure_dev_pki(files, clock, fallback));
    keys = {.server = made.server,
            .node = made.node,
            .ca_pem = made.ca.certificate_pem,
            .token_key_pem = made.token_key_pem};
  } else {
    for (const auto& [path, pem] : {std::pair{&paths.ca_certificate, &keys.ca_pem},
                                    {&paths.server_certificate, &keys.server.certificate_pem},
                                    {&paths.server_key, &keys.server.key_pem},
                                    {&paths.node_certificate, &keys.node.certificate_pem},
                                    {&paths.node_key, &keys.node.key_pem},
                                    {&paths.token_key, &keys.token_key_pem}}) {
      UCCP_TRY(*pem, read_file(files, *path, kFileBytesMax));
    }
    for (const auto& [identity, path] :
         {std::pair{&keys.server, &paths.server_certificate}, {&keys.node, &paths.node_certificate}}) {
      if (Status status = runtime::check_identity(*identity, keys.ca_pem, clock.wall()); !status.is_ok()) {
        return fail(Code::kFailedPrecondition, "CERTIFICATE_FOREIGN",
                    "the certificate " + *path + " cannot be used: " + status.message() +
                        "; it must come from the authority in " + paths.ca_certificate + " (uccp cluster prepare)");
      }
    }
  }
  UCCP_TRY(const auto info, runtime::inspect_certificate(keys.node.certificate_pem));
  for (const std::string& uri : info.uris) (void)parse_node_uri(uri, keys.cluster_id, keys.node_id);
  return keys;
}

std::string node_json(NodeId node, const ServerEndpoints& endpoints, const std::string& data_dir) {
  JsonWriter json;
  json.begin_object().key("id").value(name_of(node)).key("pid").value(static_cast<int64_t>(::getpid()));
  json.key("grpc").value(endpoints.grpc).key("https").value(endpoints.https).key("metrics").value(endpoints.metrics);
  if (!endpoints.etcd.empty()) json.key("etcd").value(endpoints.etcd);
  if (!endpoints.dns.empty()) json.key("dns").value(endpoints.dns);
  json.key("raft").value(endpoints.raft).key("dataDir").value(data_dir).key("clusterId").value(endpoints.cluster_id);
  json.end_object();
  return json.take() + "\n";
}

}  // namespace uccp::server
