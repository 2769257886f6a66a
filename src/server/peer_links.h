// Calls to the other nodes: one gRPC channel a peer, opened with the node's certificate when first needed.
//
// Thread: callable from any thread. Must outlive every call; callbacks come from threads of gRPC.
#pragma once

#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "call/forward.h"
#include "doors/grpc_client/channel.h"
#include "runtime/pki.h"
#include "services/cluster/cluster_ports.h"

namespace uccp::server {

class PeerLinks final : public call::ForwardPort, public cluster::Peers {
 public:
  PeerLinks(NodeId self, runtime::PemIdentity identity, std::string ca_pem)
      : self_(self), identity_(std::move(identity)), ca_pem_(std::move(ca_pem)) {}

  // Further connections use these; those at work go on until their calls end.
  void replace_certificates(runtime::PemIdentity identity, std::string ca_pem);
  // Addresses of the gRPC API of all nodes.
  void set_addresses(std::map<NodeId, std::string> addresses);
  std::map<NodeId, std::string> addresses() const;
  // What the node knows of a group. The number of groups is small and fixed.
  void set_leads(GroupId group, bool leads);
  void set_leader(GroupId group, NodeId leader);
  // Calls a node whose address is all that is known of it.
  void call_at(const std::string& address, std::string_view method, std::string request, int64_t timeout_ms, Done done);

  bool leads(GroupId group) const override;
  NodeId leader(GroupId group) const override;
  std::shared_ptr<call::ForwardStream> open(NodeId to, call::ForwardEvents events) override;
  void call(NodeId to, std::string_view method, std::string request, int64_t timeout_ms, Done done) override;

 private:
  static constexpr size_t kGroupsMax = 64;

  std::shared_ptr<doors::GrpcChannel> channel_at(const std::string& address);
  std::shared_ptr<doors::GrpcChannel> channel(NodeId to);

  const NodeId self_;
  std::array<std::atomic<bool>, kGroupsMax> leads_{};
  std::array<std::atomic<uint64_t>, kGroupsMax> leaders_{};
  mutable std::mutex mutex_;  // of what follows
  runtime::PemIdentity identity_;
  std::string ca_pem_;
  std::map<NodeId, std::string> addresses_;
  std::map<std::string, std::shared_ptr<doors::GrpcChannel>> channels_;
};

}  // namespace uccp::server
