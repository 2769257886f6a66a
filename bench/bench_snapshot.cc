// What writers notice while a new node receives the whole state: the tail of puts at a fixed rate before, and from the
// start of a fourth node until its state is current.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "bench/consensus.h"

namespace uccp::bench {
namespace {

constexpr double kPutsPerSecond = 500;
constexpr double kTransferMaxSeconds = 180;
constexpr size_t kBytes = 1024;
constexpr const char* kKvBytesMax = "8589934592";  // more than is written

double sent_megabytes(const UccpCluster& cluster) {
  double bytes = 0;
  for (size_t i = 0; i < cluster.size(); ++i) {
    bytes += std::max(0.0, cluster.metric(i, "uccp_snapshot_bytes_sent_total{group=\"core\"}"));
  }
  return bytes / 1e6;
}

}  // namespace

Status run_snapshot(Context& context) {
  // Compressed, it would be another size than the one that is named: values are random.
  const uint64_t keys = context.quick ? 150'000 : 2'000'000;
  UCCP_TRY(const auto cluster,
           UccpCluster::start(context, {.settings = {{"snapshot_threshold", "1000"}, {"kv_bytes_max", kKvBytesMax}}}));
  Side side{.cluster = cluster.get(), .ours = true, .load = nullptr};
  UCCP_RETURN_IF_ERROR(side.connect(Side::Endpoints::kLeader, 4));
  UCCP_RETURN_IF_ERROR(fill(side, keys, kBytes));
  const Work work = put_work(true);
  Plan plan{.in_flight = 4096, .rate = kPutsPerSecond, .seconds = context.quick ? 3.0 : 10.0, .warm_up_s = 0.5};
  const LoadResult before = side.run(work, plan);

  UCCP_TRY(const size_t fresh, cluster->add());
  const auto begin = std::chrono::steady_clock::now();
  UCCP_RETURN_IF_ERROR(cluster->Cluster::start(fresh));
  std::atomic<bool> done{false};
  std::atomic<bool> arrived{false};
  std::thread watcher([&] {
    const auto late = begin + std::chrono::seconds(static_cast<int64_t>(kTransferMaxSeconds));
    while (!arrived.load() && std::chrono::steady_clock::now() < late) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      arrived = cluster->metric(fresh, "uccp_raft_serving{group=\"core\"}") == 1 &&
                cluster->metric(fresh, "uccp_raft_applied_index{group=\"core\"}") > 0;
    }
    done.store(true);
  });
  plan.seconds = kTransferMaxSeconds;
  plan.warm_up_s = 0;
  plan.stop = &done;
  const LoadResult during = side.run(work, plan);
  watcher.join();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();

  Row row{.metric = fmt::format("put p99 at {:.0f}/s while a new node gets the state", kPutsPerSecond),
          .unit = "ms",
          .better = Better::kLower};
  row.settings = fmt::format("open loop, 3 nodes and a fourth, {} keys of {} B", keys, kBytes);
  row.add_ours(during.latency.percentile_ms(0.99));
  note_failures(row, before, true);
  note_failures(row, during, true);
  if (!arrived) row.problem = "the new node did not catch up";
  const double sent = sent_megabytes(*cluster);
  if (sent < static_cast<double>(keys * kBytes) / 4e6) row.problem = fmt::format("only {:.0f} MB were sent", sent);
  row.detail("p99BeforeMs", before.latency.percentile_ms(0.99));
  row.detail("p50BeforeMs", before.latency.percentile_ms(0.5));
  row.detail("p50Ms", during.latency.percentile_ms(0.5));
  row.detail("maxMs", during.latency.max_ms());
  row.detail("snapshotMegabytes", sent);
  row.detail("seconds", seconds);
  context.emit(row);
  return Status::ok();
}

}  // namespace uccp::bench
