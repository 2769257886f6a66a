#include "server/cluster_side.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>

#include "base/log.h"
#include "services/admin/build_info.h"

namespace uccp::server {
namespace {

constexpr int64_t kTickMs = 100;

std::string join_host(const std::string& host, uint16_t port) {
  return (host.find(':') == std::string::npos ? host : "[" + host + "]") + ":" + std::to_string(port);
}

// "0.0.0.0:50000" as the others have to dial it.
std::string advertised(const std::string& address, const std::string& host) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || address.substr(colon) == ":0") return {};
  return host + address.substr(colon);
}

}  // namespace

ClusterSide::ClusterSide(const ClusterOptions& options, storage::StoreIdentity identity,
                         ClusterSideEnvironment environment)
    : options_(options),
      identity_(std::move(identity)),
      env_(std::move(environment)),
      links_(identity_.node, options.identity, options.ca_pem) {}

ClusterSide::~ClusterSide() { stop_network(); }

std::vector<NodeId> ClusterSide::founders() const {
  if (!options_.enabled) return {identity_.node};
  if (!options_.initial_members.contains(identity_.node)) return {};
  std::vector<NodeId> founders;
  for (const auto& [node, address] : options_.initial_members) founders.push_back(node);
  return founders;
}

Status ClusterSide::listen(uint64_t seed) {
  const std::vector<NodeId> named = founders();
  ClusterMemberOptions member;
  member.self = identity_.node;
  member.incarnation = identity_.incarnation;
  member.initial_members = options_.initial_members;
  member.join_addresses = options_.join_addresses;
  member.founder = !named.empty();
  if (options_.enabled) {
    runtime::PeerNetworkOptions network;
    network.self = identity_.node;
    network.cluster_id = identity_.cluster_id;
    network.incarnation = identity_.incarnation;
    network.listen_host = options_.listen_host;
    network.listen_port = options_.raft_port;
    network.identity = options_.identity;
    network.ca_pem = options_.ca_pem;
    network.admit = [this](NodeId peer, Incarnation incarnation) {
      return member_ == nullptr || member_->admits(peer, incarnation);
    };
    network_ = std::make_unique<runtime::PeerNetwork>(std::move(network), env_.loop, env_.metrics, seed);
    UCCP_TRY(const uint16_t port, network_->listen());
    raft_address_ = join_host(options_.advertise_host, port);
  }
  member_ = std::make_unique<ClusterMember>(std::move(member), links_, network_.get(), env_.clock, env_.fatal);
  return Status::ok();
}

internal::v1::MemberRow ClusterSide::own_row(const ServerEndpoints& endpoints) const {
  internal::v1::MemberRow row;
  const std::string host = join_host(options_.advertise_host, 0);
  const std::string bare = host.substr(0, host.rfind(':'));
  row.set_raft_address(raft_address_);
  row.set_grpc_address(options_.enabled ? advertised(endpoints.grpc, bare) : endpoints.grpc);
  row.set_https_address(options_.enabled ? advertised(endpoints.https, bare) : endpoints.https);
  row.set_metrics_address(endpoints.metrics.ends_with(":0") ? "" : endpoints.metrics);
  row.set_etcd_address(options_.enabled ? advertised(endpoints.etcd, bare) : endpoints.etcd);
  row.set_version(std::string(admin::program_version()));
  return row;
}

Status ClusterSide::join(node::Node& node, const ServerEndpoints& planned) {
  node_ = &node;
  groups_ = std::make_unique<NodeGroups>(identity_.node, node);
  member_->set_own(own_row(planned));
  const auto groups = groups_->replicas();
  const bool fresh = std::ranges::all_of(groups, [](const auto& group) { return group.last == LogIndex(0); });
  return member_->join(fresh);
}

void ClusterSide::add_handlers(call::HandlerTable& local, std::function<bool()> ready,
                               call::ForwardService::AuthorizeAgain authorize_again) {
  service_ = std::make_unique<cluster::ClusterService>(
      cluster::ClusterEnvironment{.self = identity_.node,
                                  .cluster_id = identity_.cluster_id,
                                  .version = std::string(admin::program_version()),
                                  .proposer = *node_,
                                  .core = [this] { return node_->view(kCoreGroup); },
                                  .groups = *groups_,
                                  .peers = links_,
                                  .timers = env_.timers,
                                  .clock = env_.clock,
                                  .ready = std::move(ready),
                                  .feature_level_max = env_.feature_level_max});
  levels_ =
      std::make_unique<cluster::FeatureLevels>(cluster::FeatureLevelsEnvironment{.self = identity_.node,
                                                                                 .level_max = env_.feature_level_max,
                                                                                 .groups = *groups_,
                                                                                 .peers = links_,
                                                                                 .proposer = *node_,
                                                                                 .loop = env_.loop,
                                                                                 .clock = env_.clock});
  service_->add_handlers(local);
  forward_service_ = std::make_unique<call::ForwardService>(local, links_, env_.clock, std::move(authorize_again));
  forward_service_->add_handlers(local);
  member_->attach([this] { return node_->view(kCoreGroup); }, *groups_, *service_);
}

void ClusterSide::fill_doors(const call::HandlerTable& local, call::HandlerTable& doors) {
  forwarder_ = std::make_unique<call::Forwarder>(local, links_, env_.timers, env_.clock, env_.metrics);
  forwarder_->add_handlers(doors);
}

void ClusterSide::serve(const ServerEndpoints& endpoints) {
  member_->set_own(own_row(endpoints));
  ticking_->store(true);
  env_.loop.post([this] { tick(); });
}

void ClusterSide::tick() {
  if (!ticking_->load()) return;
  member_->tick();
  levels_->tick();
  env_.loop.post_after(kTickMs, [this] { tick(); });
}

Status ClusterSide::replace_certificates(const runtime::PemIdentity& identity, const std::string& ca_pem,
                                         std::shared_ptr<const PeerTrust> trust) {
  if (network_ == nullptr) return Status::ok();
  UCCP_RETURN_IF_ERROR(network_->replace_certificates(identity, std::move(trust)));
  links_.replace_certificates(identity, ca_pem);
  return Status::ok();
}

void ClusterSide::check_peers() {
  if (network_) network_->check_peers();
}

void ClusterSide::hand_over(int64_t timeout_ms) {
  if (network_ == nullptr || groups_ == nullptr) return;
  struct Waiting {
    std::mutex mutex;
    std::condition_variable changed;
    size_t left = 0;
  };
  auto waiting = std::make_shared<Waiting>();
  for (const cluster::ReplicaState& group : groups_->replicas()) {
    if (!group.leads) continue;
    const NodeId heir = groups_->heir(group.id);
    if (!heir) continue;
    {
      std::lock_guard lock(waiting->mutex);
      ++waiting->left;
    }
    groups_->transfer(group.id, heir, [waiting, name = group.name, heir](Status status) {
      log::info("leadership handed over", {{"group", name}, {"to", heir.value}, {"outcome", status.to_string()}});
      std::lock_guard lock(waiting->mutex);
      --waiting->left;
      waiting->changed.notify_all();
    });
  }
  std::unique_lock lock(waiting->mutex);
  waiting->changed.wait_for(lock, std::chrono::milliseconds(timeout_ms), [&] { return waiting->left == 0; });
}

void ClusterSide::stop_ticking() { ticking_->store(false); }

void ClusterSide::stop_network() {
  if (network_) network_->stop();
}

}  // namespace uccp::server
