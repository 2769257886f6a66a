// Everything of a node that has to do with the other nodes, put together: network, calls, membership, forwarding.
//
// Built and ended on the main thread, in the order of its methods; ticks on the loop.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "call/forward.h"
#include "node/node.h"
#include "server/cluster_member.h"
#include "server/node_groups.h"
#include "server/peer_links.h"
#include "server/server.h"
#include "services/cluster/cluster_service.h"
#include "services/cluster/feature_levels.h"
#include "storage/log_store.h"

namespace uccp::server {

struct ClusterSideEnvironment {
  runtime::Loop& loop;
  Executor& timers;  // retries of calls and what waits for a change of membership
  const Clock& clock;
  MetricsRegistry& metrics;
  std::function<void(Status)> fatal;
  uint32_t feature_level_max = 1;  // to which this node lets its groups rise
};

class ClusterSide {
 public:
  ClusterSide(const ClusterOptions& options, storage::StoreIdentity identity, ClusterSideEnvironment environment);
  ~ClusterSide();

  // Opens the port for the other nodes. For a cluster of one it does nothing.
  Status listen(uint64_t seed);
  Network* network() { return network_.get(); }
  // The voters of groups without history; empty for a node that joins.
  std::vector<NodeId> founders() const;
  PeerLinks& links() { return links_; }

  // After the node was opened, before it runs: joins the cluster, or finds out that it must not take part.
  Status join(node::Node& node, const ServerEndpoints& planned);
  // From the node's callback.
  void on_leadership(GroupId group, bool leads) { links_.set_leads(group, leads); }
  // Adds the cluster's own methods to `local`, and all that `doors` serves.
  void add_handlers(call::HandlerTable& local, std::function<bool()> ready,
                    call::ForwardService::AuthorizeAgain authorize_again);
  void fill_doors(const call::HandlerTable& local, call::HandlerTable& doors);
  // The doors are open.
  void serve(const ServerEndpoints& endpoints);
  // What connections to other nodes show and accept from now on. Errors: PeerNetwork::replace_certificates().
  Status replace_certificates(const runtime::PemIdentity& identity, const std::string& ca_pem,
                              std::shared_ptr<const PeerTrust> trust);
  // Some peers may have been revoked.
  void check_peers();
  // Hands leaderships over so that nobody has to wait for an election. Blocks at most `timeout_ms`.
  void hand_over(int64_t timeout_ms);
  void stop_ticking();
  void stop_network();
  std::string raft_address() const { return raft_address_; }

 private:
  void tick();
  internal::v1::MemberRow own_row(const ServerEndpoints& endpoints) const;

  const ClusterOptions options_;
  const storage::StoreIdentity identity_;
  ClusterSideEnvironment env_;
  PeerLinks links_;
  std::string raft_address_;
  std::unique_ptr<runtime::PeerNetwork> network_;
  node::Node* node_ = nullptr;
  std::unique_ptr<NodeGroups> groups_;
  std::unique_ptr<cluster::ClusterService> service_;
  std::unique_ptr<ClusterMember> member_;
  std::unique_ptr<cluster::FeatureLevels> levels_;
  std::unique_ptr<call::ForwardService> forward_service_;
  std::unique_ptr<call::Forwarder> forwarder_;
  std::shared_ptr<std::atomic<bool>> ticking_ = std::make_shared<std::atomic<bool>>(false);
};

}  // namespace uccp::server
