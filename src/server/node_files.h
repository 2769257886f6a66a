// Files of a cluster on this machine: what `uccp cluster init`, `prepare` and `context` make, and what a node reads.
//
//   DIR/pki/                 the authority, with keys of the admin and the agents; only here is its private key
//   DIR/n1/uccp.yaml         configuration of the node
//   DIR/n1/pki/              certificates of the node, made beforehand: it cannot issue any
//   DIR/n1/node.json         where the node is and its pid; there only while it serves
//   DIR/cluster.json         context file for the whole cluster
#pragma once

#include <string>

#include "base/clock.h"
#include "base/file_system.h"
#include "runtime/dev_pki.h"
#include "server/server.h"
#include "services/cluster/cluster_state.h"

namespace uccp::server {

struct ClusterInitOptions {
  std::string directory;
  int nodes = 3;
  std::string cluster_id;  // empty: that of the directory, or a random one
  std::string host = "127.0.0.1";
  bool auto_ports = false;
};

// Makes what is missing; keeps what is there. Errors: invalid USAGE, those of the file system.
Status init_cluster(FileSystem& files, const Clock& clock, const ClusterInitOptions& options);
// The same for one more node, which joins by itself when it is started.
Status prepare_node(FileSystem& files, const Clock& clock, const ClusterInitOptions& options, NodeId node);
// The content of cluster.json, from the nodes that serve. Errors: unavailable CLUSTER_NOT_RUNNING if none does.
Result<std::string> cluster_context(FileSystem& files, const Clock& clock, const std::string& directory);

// The keys of a configured node: those in its directory, or new ones with an authority of its own.
struct NodeKeys {
  runtime::PemIdentity server;
  runtime::PemIdentity node;
  std::string ca_pem;
  std::string token_key_pem;
  std::string cluster_id;  // of the node's certificate
  NodeId node_id;          // of the node's certificate
};
// Errors: failed_precondition CERTIFICATE_FOREIGN if a certificate is not of the authority beside it; corruption
// PEM_INVALID; those of the file system.
Result<NodeKeys> load_keys(FileSystem& files, const Clock& clock, const std::string& directory,
                           const runtime::DevPkiOptions& fallback);

std::string node_json(NodeId node, const ServerEndpoints& endpoints, const std::string& data_dir);

}  // namespace uccp::server
