// The composition root: builds storage, node, services, pipeline and doors of one process, and takes them down again.
//
// Nothing here decides anything; it only connects. Built and destroyed on the main thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/status.h"
#include "runtime/peer_network.h"
#include "server/certificate_sources.h"
#include "server/config.h"

namespace uccp::server {

// A node with others. Their addresses and certificates.
struct ClusterOptions {
  bool enabled = false;
  std::string listen_host = "127.0.0.1";
  std::string advertise_host;  // empty: listen_host
  uint16_t raft_port = 0;      // 0: any free one
  std::map<NodeId, runtime::PeerAddress> initial_members;
  std::vector<std::string> join_addresses;
  runtime::PemIdentity identity;
  std::string ca_pem;
};

struct ServerOptions {
  std::string data_dir;
  NodeId node{1};
  std::string cluster_id;  // empty: that of the data directory, or a new one
  std::string host = "127.0.0.1";
  std::string metrics_host = "127.0.0.1";
  uint16_t grpc_port = 0;  // 0: any free one
  uint16_t https_port = 0;
  uint16_t metrics_port = 0;
  std::optional<uint16_t> etcd_port = 0;  // nothing: the door stays closed
  std::optional<uint16_t> dns_port = 0;   // the same
  std::string certificate_pem, key_pem;
  std::string client_ca_pem;
  bool rest_takes_certificates = true;  // the gRPC port always does: agents and nodes have nothing else
  std::string token_key_pem;
  CertificateSources certificates;  // where these come from while the server runs; node and peers are filled in
  int64_t worker_lease_ms = 60'000;
  std::string agent_context_file;  // for agents that are started on this machine
  ClusterOptions cluster;
};

struct ServerEndpoints {
  std::string grpc, https, metrics;  // host:port
  std::string etcd;                  // empty: closed
  std::string raft;                  // empty for a cluster of one
  std::string cluster_id;
  std::string dns;  // empty: closed
};

class Server {
 public:
  // Opens the data directory, starts the node and opens the doors. Returns when the node serves; one of a cluster may
  // still wait for a leader then, which its health tells.
  // `fatal` is called, from any thread, when the node cannot go on; the process should then exit without stop().
  static Result<std::unique_ptr<Server>> start(const ServerOptions& options, const Config& config,
                                               std::function<void(Status)> fatal);
  ~Server();

  const ServerEndpoints& endpoints() const;
  // Waits until a worker is connected, at most `timeout_ms`.
  bool wait_for_worker(int64_t timeout_ms);
  // Ends the agents that autoscaling started on this machine, before stop() and for good.
  void stop_local_workers();
  // Refuses new calls, lets those at work end, flushes, closes. Idempotent.
  void stop();

 private:
  struct Parts;
  explicit Server(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace uccp::server
