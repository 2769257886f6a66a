// Discovery on three nodes: 100,000 instances registered, all of them sending heartbeats, and asked for while a node
// dies.
#include <fmt/format.h>

#include <csignal>
#include <thread>

#include "bench/bench.h"
#include "bench/cluster.h"
#include "bench/grpc_load.h"
#include "bench/process.h"
#include "bench/requests.h"

namespace uccp::bench {
namespace {

constexpr uint64_t kNames = 10'000, kInstances = 10, kServices = kNames * kInstances;
constexpr int64_t kTtlSeconds = 60, kBeatSeconds = 10;
constexpr double kDiscoversPerSecond = 10'000;

std::string instance(uint64_t i) { return instance_id(i / kInstances % kNames, i % kInstances); }

double largest_rss_mb(const UccpCluster& cluster) {
  double largest = 0;
  for (const int pid : cluster.pids()) largest = std::max(largest, rss_mb(pid));
  return largest;
}

void note(Row& row, const LoadResult& result) {
  row.verified += result.ok;
  if (const uint64_t failed = result.failed + result.expired; failed > 0) {
    row.problem = fmt::format("{} calls failed: {}", failed, result.first_error);
  }
  if (result.shed > 0) row.problem = fmt::format("{} calls were refused: {}", result.shed, result.first_shed);
}

Status load_services(Context& context, UccpCluster& cluster, size_t leader) {
  UCCP_TRY(const auto load, GrpcLoad::connect(cluster.target(leader), cluster.tls(), 8));
  Work work;
  work.method = "uccp.v1.ServiceDiscovery/Register";
  work.request = [](uint64_t i) { return register_request(i / kInstances, i % kInstances, kTtlSeconds); };
  work.verify = [](uint64_t i, std::string_view reply) { return bytes_field(reply, 1) == instance(i); };
  const LoadResult result =
      load->run(work, {.in_flight = 1024, .operations = kServices, .server_pids = cluster.pids()});
  Row time{.metric = fmt::format("three nodes: {} services are registered", kServices),
           .unit = "s",
           .better = Better::kLower,
           .goal = {Goal::Of::kOurs, Better::kLower, 8}};
  time.settings = "1,024 in flight to the leader, durable on a majority";
  note(time, result);
  time.add_ours(result.seconds);
  time.detail("perSecond", result.rate());
  time.detail("p99Ms", result.latency.percentile_ms(0.99));
  time.detail("serverUsPerOp", result.server_us_per_op());
  context.emit(time);
  if (!time.problem.empty()) return {Code::kInternal, "BENCH_FAILED", time.problem};
  Row memory{.metric = fmt::format("three nodes: largest memory of a node with {} services", kServices),
             .unit = "MB",
             .better = Better::kLower,
             .goal = {Goal::Of::kOurs, Better::kLower, 250}};
  memory.verified = kServices;
  memory.add_ours(largest_rss_mb(cluster));
  memory.detail("allNodesMb", cluster.rss_mb());
  context.emit(memory);
  return Status::ok();
}

Status measure_heartbeats(Context& context, UccpCluster& cluster, size_t leader) {
  UCCP_TRY(const auto load, GrpcLoad::connect(cluster.targets(), cluster.tls(), 6));
  Work work;
  work.method = "uccp.v1.ServiceDiscovery/Heartbeat";
  work.request = [](uint64_t i) { return id_request(instance(i)); };
  work.verify = [](uint64_t, std::string_view reply) { return !reply.empty(); };
  Plan plan{.in_flight = 4096,
            .rate = static_cast<double>(kServices) / kBeatSeconds,
            .seconds = static_cast<double>(kBeatSeconds),
            .warm_up_s = 1,
            .server_pids = cluster.pids()};
  const std::vector<int> leads{cluster.pid(leader)};
  const double before = cpu_seconds_of(leads);
  const LoadResult result = load->run(work, plan);
  const double leader_cores = (cpu_seconds_of(leads) - before) / (plan.seconds + plan.warm_up_s);
  Row row{.metric = fmt::format("three nodes: cores of the leader, {} services with a heartbeat each {} s", kServices,
                                kBeatSeconds),
          .unit = "cores",
          .better = Better::kLower,
          .goal = {Goal::Of::kOurs, Better::kLower, 1}};
  row.settings = "through all nodes in turn";
  note(row, result);
  row.add_ours(leader_cores);
  row.detail("allNodesCores", result.server_cores);
  row.detail("answeredPerSecond", result.rate());
  row.detail("p99Ms", result.latency.percentile_ms(0.99));
  row.detail("largestMb", largest_rss_mb(cluster));
  const double registered = cluster.metric(leader, "uccp_services_registered");
  if (registered != static_cast<double>(kServices)) {
    row.problem = fmt::format("{:.0f} are registered afterwards", registered);
  }
  context.emit(row);
  return Status::ok();
}

// Through the two nodes that stay, while the leader is killed in the middle.
Status measure_discovery(Context& context, UccpCluster& cluster, size_t leader) {
  std::vector<std::string> others;
  for (size_t node = 0; node < cluster.size(); ++node) {
    if (node != leader) others.push_back(cluster.target(node));
  }
  UCCP_TRY(const auto load, GrpcLoad::connect(others, cluster.tls(), 4));
  Work work;
  work.method = "uccp.v1.ServiceDiscovery/Discover";
  work.request = [](uint64_t i) { return discover_request(i * 7919 % kNames); };
  work.verify = [](uint64_t i, std::string_view reply) {
    return count_items(reply, 1) == kInstances &&
           bytes_field(bytes_field(reply, 1), 3) == service_name(i * 7919 % kNames);
  };
  Row rate{.metric = "three nodes: Discover, 64 in flight, before a node is killed",
           .unit = "1/s",
           .goal = {Goal::Of::kOurs, Better::kHigher, kDiscoversPerSecond}};
  rate.settings = "through both followers";
  const LoadResult closed = load->run(work, {.in_flight = 64, .seconds = context.seconds()});
  note(rate, closed);
  rate.add_ours(closed.rate());
  context.emit(rate);

  Row tail{.metric = fmt::format("three nodes: Discover p99 at {:.0f}/s while the leader dies", kDiscoversPerSecond),
           .unit = "ms",
           .better = Better::kLower,
           .goal = {Goal::Of::kOurs, Better::kLower, 10}};
  tail.settings = "open loop through both followers; kill -9 a quarter into the time";
  const Plan plan{.in_flight = 4096, .rate = kDiscoversPerSecond, .seconds = 8};
  LoadResult open;
  {
    const std::jthread killer([&] {
      std::this_thread::sleep_for(std::chrono::duration<double>(plan.warm_up_s + plan.seconds / 4));
      cluster.kill(leader, SIGKILL);
    });
    open = load->run(work, plan);
  }
  note(tail, open);
  tail.add_ours(open.latency.percentile_ms(0.99));
  tail.detail("answeredPerSecond", open.rate());
  tail.detail("maxMs", open.latency.max_ms());
  if (open.rate() < 0.99 * kDiscoversPerSecond) tail.problem += fmt::format("only {:.0f}/s were answered", open.rate());
  context.emit(tail);
  return Status::ok();
}

}  // namespace

Status run_discovery_cluster(Context& context) {
  UCCP_TRY(const auto cluster, UccpCluster::start(context));
  UCCP_TRY(const size_t leader, cluster->leader());
  UCCP_RETURN_IF_ERROR(load_services(context, *cluster, leader));
  UCCP_RETURN_IF_ERROR(measure_heartbeats(context, *cluster, leader));
  return measure_discovery(context, *cluster, leader);
}

}  // namespace uccp::bench
