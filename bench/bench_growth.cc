// How the cost of a put and of a get grows: over the size of values, the number of groups, of nodes, and of keys. Each
// point is a row without a goal; bench/charts.py draws them.
#include <fmt/format.h>

#include <thread>

#include "bench/consensus.h"
#include "bench/node_cluster.h"

namespace uccp::bench {
namespace {

constexpr size_t kInFlight = 64;
constexpr double kSeconds = 1.5;
constexpr size_t kFillBatch = 120;  // a transaction has at most 128 operations

Row point(const std::string& metric, const std::string& unit, const std::string& settings) {
  Row row{.metric = metric, .unit = unit};
  row.settings = settings;
  return row;
}

// In percent of all cores. Near 100 the CPU is what bounds the rate.
void note_busy(Row& row, double cores) { row.detail("busyPercent", cores * 100 / std::thread::hardware_concurrency()); }

// Puts of one size into a cluster of so many nodes.
Status puts(Context& context, UccpCluster& cluster, size_t value_bytes, const std::string& name) {
  Side side{.cluster = &cluster, .ours = true, .load = nullptr};
  UCCP_RETURN_IF_ERROR(side.connect(Side::Endpoints::kLeader, 8));
  // Large values fill the window between leader and followers with fewer calls.
  const size_t in_flight = value_bytes >= 1u << 18 ? 8 : kInFlight;
  Row row = point(name, "1/s", fmt::format("{} clients, {} nodes", in_flight, cluster.size()));
  for (int i = 0; i < 2; ++i) {
    const LoadResult result =
        side.run(put_work(true, value_bytes), {.in_flight = in_flight, .seconds = kSeconds, .warm_up_s = 0.3});
    row.add_ours(result.rate());
    note_failures(row, result, true);
    if (i < 1) continue;
    row.detail("p50Ms", result.latency.percentile_ms(0.5));
    row.detail("p99Ms", result.latency.percentile_ms(0.99));
    row.detail("serverUsPerOp", result.server_us_per_op());
    row.detail("megabytesPerSecond", result.rate() * static_cast<double>(value_bytes) / 1e6);
    note_busy(row, result.server_cores + result.generator_cores);
  }
  context.emit(row);
  return Status::ok();
}

// A server has a fixed set of groups, so these are nodes without doors and services.
Status group_puts(Context& context, size_t groups) {
  const std::string directory = fmt::format("{}/groups-{}", context.work_dir, groups);
  UCCP_TRY(const auto cluster, NodeCluster::start(directory, groups));
  (void)cluster->puts(kInFlight, kValueBytes, 0.3);
  Row row = point(fmt::format("growth groups {} put", groups), "1/s",
                  fmt::format("{} changes in flight, 3 nodes in one process, no doors", kInFlight));
  for (int i = 0; i < 2; ++i) {
    const GroupLoad load = cluster->puts(kInFlight, kValueBytes, kSeconds);
    row.add_ours(load.rate);
    if (load.failed > 0) row.problem = fmt::format("{} failed, the first: {}", load.failed, load.first_error);
    if (i < 1) continue;
    row.detail("p50Ms", load.latency.percentile_ms(0.5));
    row.detail("p99Ms", load.latency.percentile_ms(0.99));
    row.detail("serverUsPerOp", load.us_per_op);
    note_busy(row, load.cores);
  }
  context.emit(row);
  return Status::ok();
}

// Waits until the nodes have brought in order what was written, two minutes at most.
void settle(UccpCluster& cluster) {
  constexpr double kIdleCores = 0.1;
  const auto pids = cluster.pids();
  double before = cpu_seconds_of(pids);
  for (int second = 0; second < 120; ++second) {
    std::this_thread::sleep_for(std::chrono::seconds(1));
    const double now = cpu_seconds_of(pids);
    if (now - std::exchange(before, now) < kIdleCores) return;
  }
}

Status gets(Context& context, UccpCluster& cluster, uint64_t keys, uint64_t filled) {
  Side side{.cluster = &cluster, .ours = true, .load = nullptr};
  UCCP_RETURN_IF_ERROR(side.connect(Side::Endpoints::kLeader, 8));
  if (keys > filled) UCCP_RETURN_IF_ERROR(fill(side, keys, kValueBytes, kFillBatch, filled));
  settle(cluster);
  Row row = point(fmt::format("growth keys {} get", keys), "1/s", "64 clients, 3 nodes, linearizable");
  const LoadResult result =
      side.run(get_work(true, keys, "linearizable"), {.in_flight = kInFlight, .seconds = kSeconds, .warm_up_s = 0.3});
  row.add_ours(result.rate());
  note_failures(row, result, true);
  row.detail("p99Ms", result.latency.percentile_ms(0.99));
  row.detail("serverUsPerOp", result.server_us_per_op());
  row.detail("rssMb", cluster.rss_mb());
  note_busy(row, result.server_cores + result.generator_cores);
  context.emit(row);
  return Status::ok();
}

}  // namespace

Status run_growth(Context& context) {
  {
    UCCP_TRY(const auto cluster, UccpCluster::start(context, {}));
    for (size_t bytes : {16u, 256u, 4096u, 65'536u, 1'048'576u}) {
      const std::string name = fmt::format("growth value {} put", bytes);
      if (context.wants(name)) UCCP_RETURN_IF_ERROR(puts(context, *cluster, bytes, name));
    }
  }
  for (size_t groups : {1u, 4u, 16u, 64u}) {
    if (context.wants(fmt::format("growth groups {} put", groups))) UCCP_RETURN_IF_ERROR(group_puts(context, groups));
  }
  for (size_t nodes : {1u, 3u, 5u, 7u}) {
    const std::string name = fmt::format("growth nodes {} put", nodes);
    if (!context.wants(name)) continue;
    UCCP_TRY(const auto cluster, UccpCluster::start(context, {.nodes = nodes, .settings = {}}));
    UCCP_RETURN_IF_ERROR(puts(context, *cluster, kValueBytes, name));
  }
  UCCP_TRY(const auto cluster,
           UccpCluster::start(context, {.settings = {{"kv_bytes_max", "16000000000"}, {"kv_keys_max", "20000000"}}}));
  uint64_t filled = 0;
  for (uint64_t keys : {10'000u, 100'000u, 1'000'000u, 10'000'000u}) {
    // Ten million take minutes to write.
    if (context.quick && keys > 1'000'000) break;
    if (!context.wants(fmt::format("growth keys {} get", keys))) continue;
    UCCP_RETURN_IF_ERROR(gets(context, *cluster, keys, std::exchange(filled, keys)));
  }
  return Status::ok();
}

}  // namespace uccp::bench
