#include "bench/cluster.h"

#include <fmt/format.h>
#include <signal.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "bench/grpc_load.h"
#include "bench/requests.h"

namespace uccp::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kReadyMax = std::chrono::seconds(30);
constexpr auto kPoll = std::chrono::milliseconds(10);

// The value of `key` in a file of "key: value" lines, without quotes.
std::string yaml_value(const std::string& text, const std::string& key) {
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with(key + ": ")) continue;
    std::string value = line.substr(key.size() + 2);
    if (value.size() >= 2 && value.front() == '"') value = value.substr(1, value.size() - 2);
    return value;
  }
  return {};
}

Status run_to_end(const std::vector<std::string>& argv, const std::string& log) {
  UCCP_TRY(const Ended ended, run_program(argv, log));
  if (ended.how == "exit code 0") return Status::ok();
  return Status(Code::kUnavailable, "BENCH_FAILED", argv[0] + " " + argv[1] + " " + ended.how + ": " + ended.text);
}

}  // namespace

Cluster::~Cluster() {
  for (Node& node : nodes_) {
    if (node.child) node.child->stop(SIGKILL);
  }
  nodes_.clear();
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

std::vector<std::string> Cluster::targets() const {
  std::vector<std::string> out;
  for (const Node& node : nodes_) out.push_back(node.target);
  return out;
}

std::vector<int> Cluster::pids() const {
  std::vector<int> out;
  for (const Node& node : nodes_) {
    if (node.child) out.push_back(node.child->pid());
  }
  return out;
}

double Cluster::rss_mb() const {
  double sum = 0;
  for (int pid : pids()) sum += bench::rss_mb(pid);
  return sum;
}

Result<size_t> Cluster::leader() {
  for (const auto begin = Clock::now(); Clock::now() - begin < kReadyMax;) {
    for (size_t i = 0; i < nodes_.size(); ++i) {
      if (!nodes_[i].child) continue;
      if (const auto found = leader_seen_by(i); found && nodes_[*found].child) return *found;
    }
    std::this_thread::sleep_for(kPoll);
  }
  std::string why;
  for (const Node& node : nodes_) {
    const std::string log = read_text(node.log).value_or("");
    why += "\n" + log.substr(log.size() > 600 ? log.size() - 600 : 0);
  }
  return fail(Code::kUnavailable, "NO_LEADER", "no leader within 30 s; the logs end with" + why);
}

void Cluster::kill(size_t node, int signal) {
  if (!nodes_[node].child) return;
  nodes_[node].child->stop(signal);
  nodes_[node].child.reset();
}

Status Cluster::start(size_t node) {
  if (nodes_[node].child) return Status::ok();
  UCCP_TRY(Child child, Child::start(nodes_[node].argv, nodes_[node].log));
  nodes_[node].child.emplace(std::move(child));
  return Status::ok();
}

Status Cluster::start_all() {
  for (size_t i = 0; i < nodes_.size(); ++i) UCCP_RETURN_IF_ERROR(start(i));
  UCCP_TRY(const size_t ignored, leader());
  (void)ignored;
  return Status::ok();
}

Status Cluster::restart() {
  for (size_t i = 0; i < nodes_.size(); ++i) kill(i, SIGTERM);
  return start_all();
}

Result<std::unique_ptr<UccpCluster>> UccpCluster::start(const Context& context, const UccpClusterOptions& options) {
  std::unique_ptr<UccpCluster> cluster(new UccpCluster);
  cluster->directory_ = new_directory(context, "uccp");
  cluster->bin_ = context.bin_dir + "/uccp";
  const std::string& dir = cluster->directory_;
  UCCP_RETURN_IF_ERROR(cluster->make_files(options));
  for (size_t k = 1; k <= options.nodes; ++k) {
    const std::string config = fmt::format("{}/n{}/uccp.yaml", dir, k);
    std::ofstream out(config, std::ios::app);
    out << "log_level: WARN\n";
    for (const auto& [key, value] : options.settings) out << key << ": " << value << "\n";
    out.close();
    UCCP_RETURN_IF_ERROR(
        cluster->read_config(fmt::format("{}/n{}", dir, k), options.places.empty() ? Place() : options.places[k - 1]));
  }
  UCCP_TRY(cluster->tls_.ca_pem, read_text(dir + "/pki/ca.crt"));
  UCCP_TRY(cluster->tls_.certificate_pem, read_text(dir + "/pki/admin.crt"));
  UCCP_TRY(cluster->tls_.key_pem, read_text(dir + "/pki/admin.key"));
  UCCP_RETURN_IF_ERROR(cluster->start_all());
  return cluster;
}

Status UccpCluster::make_files(const UccpClusterOptions& options) {
  const std::string log = directory_ + "/init.log";
  if (!options.places.empty()) return make_places(options.places);
  return run_to_end(
      {bin_, "cluster", "init", "--data-dir", directory_, "--nodes", std::to_string(options.nodes), "--ports", "auto"},
      log);
}

// Each node at an address of its own, where all ports are free; all of them are founders.
Status UccpCluster::make_places(const std::vector<Place>& places) {
  const std::string log = directory_ + "/init.log";
  std::string founders;
  for (size_t k = 1; k <= places.size(); ++k) {
    std::vector<std::string> argv = {bin_,       "cluster", k == 1 ? "init" : "prepare", "--data-dir",
                                     directory_, "--host",  places[k - 1].host};
    const std::vector<std::string> which =
        k == 1 ? std::vector<std::string>{"--nodes", "1"} : std::vector<std::string>{"--node", fmt::format("n{}", k)};
    argv.insert(argv.end(), which.begin(), which.end());
    UCCP_RETURN_IF_ERROR(run_to_end(argv, log));
    UCCP_TRY(const std::string text, read_text(fmt::format("{}/n{}/uccp.yaml", directory_, k)));
    founders += fmt::format("{}n{}={}:{}", k == 1 ? "" : ",", k, places[k - 1].host, yaml_value(text, "raft_port"));
  }
  for (size_t k = 1; k <= places.size(); ++k) {
    const std::string config = fmt::format("{}/n{}/uccp.yaml", directory_, k);
    UCCP_TRY(const std::string text, read_text(config));
    std::istringstream in(text);
    std::ofstream out(config);
    for (std::string line; std::getline(in, line);) {
      if (!line.starts_with("initial_members:")) out << line << "\n";
    }
    out << "initial_members: \"" << founders << "\"\nmetrics_host: " << places[k - 1].host << "\n";
  }
  return Status::ok();
}

Status UccpCluster::read_config(const std::string& node_directory, const Place& place) {
  const std::string config = node_directory + "/uccp.yaml";
  UCCP_TRY(const std::string text, read_text(config));
  const std::string host = yaml_value(text, "listen_host");
  std::vector<std::string> argv = place.prefix;
  for (const std::string& word : {bin_, std::string("--config"), config}) argv.push_back(word);
  nodes_.push_back({host + ":" + yaml_value(text, "grpc_port"), std::move(argv), node_directory + "/uccp.log", {}});
  metrics_.push_back((place.host.empty() ? "127.0.0.1" : host) + ":" + yaml_value(text, "metrics_port"));
  etcd_.push_back(host + ":" + yaml_value(text, "etcd_port"));
  return Status::ok();
}

Result<size_t> UccpCluster::add() {
  const std::string name = "n" + std::to_string(nodes_.size() + 1);
  UCCP_RETURN_IF_ERROR(
      run_to_end({bin_, "cluster", "prepare", "--data-dir", directory_, "--node", name, "--ports", "auto"},
                 directory_ + "/add.log"));
  UCCP_RETURN_IF_ERROR(read_config(directory_ + "/" + name, Place()));
  return nodes_.size() - 1;
}

double UccpCluster::metric(size_t node, const std::string& name) const {
  const std::string text = http_get(metrics_[node], "/metrics");
  const size_t at = text.find("\n" + name + " ");
  return at == std::string::npos ? -1 : std::strtod(text.c_str() + at + name.size() + 2, nullptr);
}

std::optional<size_t> UccpCluster::leader_seen_by(size_t node) {
  // All groups have one, or calls of some wait.
  const double work = metric(node, "uccp_raft_leader{group=\"work\"}");
  const double core = metric(node, "uccp_raft_leader{group=\"core\"}");
  if (work < 1 || core < 1) return std::nullopt;
  return static_cast<size_t>(core) - 1;
}

Result<std::unique_ptr<EtcdCluster>> EtcdCluster::start(const Context& context, const UccpCluster& pki,
                                                        const std::vector<Place>& places) {
  if (!installed("etcd")) {
    return fail(Code::kNotFound, "ETCD_MISSING", "etcd is not installed (Debian: apt-get install etcd-server)");
  }
  std::unique_ptr<EtcdCluster> cluster(new EtcdCluster);
  cluster->directory_ = new_directory(context, "etcd");
  cluster->tls_ = pki.tls();
  const std::string version_log = cluster->directory_ + "/version.txt";
  UCCP_RETURN_IF_ERROR(run_to_end({"/usr/bin/env", "etcd", "--version"}, version_log));
  const std::string version = read_text(version_log).value_or("");
  cluster->version_ = version.substr(0, version.find('\n'));
  const auto host = [&](size_t k) { return places.empty() ? std::string("127.0.0.1") : places[k - 1].host; };
  std::vector<std::string> peers, members;
  for (size_t k = 1; k <= pki.size(); ++k) {
    peers.push_back(fmt::format("https://{}:{}", host(k), free_port()));
    members.push_back(fmt::format("n{}={}", k, peers.back()));
  }
  for (size_t k = 1; k <= pki.size(); ++k) {
    const std::string target = fmt::format("{}:{}", host(k), free_port());
    const std::string client = "https://" + target;
    const std::string keys = fmt::format("{}/n{}/pki", pki.directory(), k);
    std::vector<std::string> argv = places.empty() ? std::vector<std::string>() : places[k - 1].prefix;
    for (const std::string& word : {std::string("/usr/bin/env"),
                                    std::string("etcd"),
                                    "--name=" + fmt::format("n{}", k),
                                    fmt::format("--data-dir={}/n{}", cluster->directory_, k),
                                    "--listen-client-urls=" + client,
                                    "--advertise-client-urls=" + client,
                                    "--listen-peer-urls=" + peers[k - 1],
                                    "--initial-advertise-peer-urls=" + peers[k - 1],
                                    fmt::format("--initial-cluster={}", fmt::join(members, ",")),
                                    std::string("--initial-cluster-state=new"),
                                    std::string("--log-level=error"),
                                    std::string("--enable-grpc-gateway=false"),
                                    std::string("--quota-backend-bytes=8589934592"),
                                    std::string("--client-cert-auth"),
                                    "--trusted-ca-file=" + keys + "/ca.crt",
                                    "--cert-file=" + keys + "/node.crt",
                                    "--key-file=" + keys + "/node.key",
                                    std::string("--peer-client-cert-auth"),
                                    "--peer-trusted-ca-file=" + keys + "/ca.crt",
                                    "--peer-cert-file=" + keys + "/node.crt",
                                    "--peer-key-file=" + keys + "/node.key"}) {
      argv.push_back(word);
    }
    cluster->nodes_.push_back({target, std::move(argv), fmt::format("{}/n{}.log", cluster->directory_, k), {}});
  }
  UCCP_RETURN_IF_ERROR(cluster->start_all());
  return cluster;
}

// Which node it is follows from whose status names itself as the leader.
std::optional<size_t> EtcdCluster::leader_seen_by(size_t node) {
  constexpr uint32_t kHeader = 1, kMemberId = 2, kLeader = 4;
  auto load = GrpcLoad::connect(nodes_[node].target, tls_, 1);
  if (!load) return std::nullopt;
  bool leads = false;
  Work work;
  work.method = kEtcdStatus;
  work.request = [](uint64_t) { return std::string(); };
  work.verify = [&](uint64_t, std::string_view reply) {
    const uint64_t own = varint_field(bytes_field(reply, kHeader), kMemberId);
    leads = own != 0 && own == varint_field(reply, kLeader);
    return true;
  };
  (void)(*load)->run(work, {.in_flight = 1, .operations = 1, .deadline_ms = 2'000});
  return leads ? std::optional(node) : std::nullopt;
}

}  // namespace uccp::bench
