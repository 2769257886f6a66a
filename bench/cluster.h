// Clusters that a benchmark starts on loopback: real processes, ours or etcd's, with the same certificates and disk.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "bench/bench.h"
#include "bench/load.h"
#include "bench/namespaces.h"
#include "bench/process.h"

namespace uccp::bench {

class Cluster {
 public:
  virtual ~Cluster();
  size_t size() const { return nodes_.size(); }
  // gRPC addresses of the nodes.
  std::vector<std::string> targets() const;
  const std::string& target(size_t node) const { return nodes_[node].target; }
  std::vector<int> pids() const;
  int pid(size_t node) const { return nodes_[node].child ? nodes_[node].child->pid() : 0; }
  const TlsIdentity& tls() const { return tls_; }
  const std::string& version() const { return version_; }
  const std::string& directory() const { return directory_; }

  // The node that leads as far as the nodes know; waits up to 30 s. Errors: unavailable NO_LEADER.
  Result<size_t> leader();
  void kill(size_t node, int signal);
  Status start(size_t node);
  // Stops all nodes in order and starts them on their data.
  Status restart();
  double rss_mb() const;

 protected:
  struct Node {
    std::string target;
    std::vector<std::string> argv;
    std::string log;
    std::optional<Child> child;
  };
  // Asks a node; nothing if it knows of no leader.
  virtual std::optional<size_t> leader_seen_by(size_t node) = 0;
  Status start_all();

  std::string directory_, version_;
  std::vector<Node> nodes_;
  TlsIdentity tls_;
};

struct UccpClusterOptions {
  size_t nodes = 3;
  std::map<std::string, std::string> settings;  // lines of each node's configuration
  std::vector<Place> places;                    // one a node; empty: all on 127.0.0.1 and free ports
};

class UccpCluster final : public Cluster {
 public:
  static Result<std::unique_ptr<UccpCluster>> start(const Context& context, const UccpClusterOptions& options = {});
  // Makes another node, which joins when it is started. Answers its number.
  Result<size_t> add();
  // The value of a line of the node's metrics, such as `uccp_raft_term{group="core"}`; -1: there is none.
  double metric(size_t node, const std::string& name) const;
  // Of the node's etcd API.
  const std::string& etcd_target(size_t node) const { return etcd_[node]; }

 private:
  std::optional<size_t> leader_seen_by(size_t node) override;
  Status make_files(const UccpClusterOptions& options);
  Status make_places(const std::vector<Place>& places);
  Status read_config(const std::string& node_directory, const Place& place);
  std::string bin_;
  std::vector<std::string> metrics_, etcd_;
};

// Etcd with its defaults, mutual TLS between nodes too, and the certificates of `pki`, a cluster of ours.
class EtcdCluster final : public Cluster {
 public:
  // Errors: not_found ETCD_MISSING if the program is not installed.
  // `places` as in UccpClusterOptions.
  static Result<std::unique_ptr<EtcdCluster>> start(const Context& context, const UccpCluster& pki,
                                                    const std::vector<Place>& places = {});

 private:
  std::optional<size_t> leader_seen_by(size_t node) override;
};

}  // namespace uccp::bench
