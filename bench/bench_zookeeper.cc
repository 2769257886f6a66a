// Durable writes of one node beside one ZooKeeper, without a goal: it is the fastest of its kind. It speaks plain TCP
// to a client of a few lines; ours has TLS, authentication and an audit record a put.
#include <fmt/format.h>

#include "bench/consensus.h"
#include "bench/zookeeper.h"

namespace uccp::bench {
namespace {

constexpr size_t kConnections = 8;
constexpr size_t kNodes = 10'000;

}  // namespace

Status run_consensus_zookeeper(Context& context) {
  UCCP_TRY(const auto cluster, UccpCluster::start(context, {.nodes = 1, .settings = {}, .places = {}}));
  Side ours{.cluster = cluster.get(), .ours = true, .load = nullptr};
  UCCP_RETURN_IF_ERROR(ours.connect(Side::Endpoints::kLeader, kConnections));
  auto zookeeper = ZooKeeper::start(context);
  if (!zookeeper) context.say(zookeeper.error().message());
  std::unique_ptr<ZooKeeperLoad> theirs;
  if (zookeeper) {
    UCCP_TRY(theirs, ZooKeeperLoad::connect((*zookeeper)->port(), kConnections));
    UCCP_RETURN_IF_ERROR(theirs->create(kNodes, kValueBytes));
  }
  const double seconds = context.quick ? 1.5 : 2.5;
  for (const size_t clients : {1u, 64u, 256u, 1000u}) {
    Row row{.metric = fmt::format("puts into one node, {} clients", clients), .unit = "1/s"};
    if (!context.wants(row.metric)) continue;
    row.peer_name = "ZooKeeper";
    row.peer_version = zookeeper ? (*zookeeper)->version() : "";
    row.settings = "closed loop, 8 connections; ours with TLS, ZooKeeper without; setData of 10,000 nodes";
    LoadResult a, b;
    for (int i = 0; i < context.pairs(); ++i) {
      a = ours.run(put_work(true), {.in_flight = clients, .seconds = seconds});
      row.add_ours(a.rate());
      note_failures(row, a, true);
      if (!theirs) continue;
      const Plan plan{.in_flight = clients, .seconds = seconds, .server_pids = {(*zookeeper)->pid()}};
      b = theirs->set(plan, kNodes, kValueBytes);
      row.add_peer(b.rate());
      note_failures(row, b, false);
    }
    row.detail("oursP99Ms", a.latency.percentile_ms(0.99));
    row.detail("oursServerUsPerOp", a.server_us_per_op());
    row.detail("peerP99Ms", b.latency.percentile_ms(0.99));
    row.detail("peerServerUsPerOp", b.server_us_per_op());
    context.emit(row);
  }
  return Status::ok();
}

}  // namespace uccp::bench
