// Discovery at 100,000 registered instances: 10,000 names of ten each, asked for by name over gRPC and REST.
#include <fmt/format.h>

#include "bench/bench.h"
#include "bench/grpc_load.h"
#include "bench/process.h"
#include "bench/requests.h"
#include "bench/rest_load.h"

namespace uccp::bench {
namespace {

constexpr uint64_t kInstances = 10;
constexpr uint64_t kNamesFull = 10'000;
constexpr uint64_t kNamesShort = 2'000;
constexpr double kRate = 10'000;
constexpr int kInFlight = 64;
constexpr size_t kOpenLoopInFlight = 4096;
constexpr int64_t kTtlSeconds = 86'400;

// Spreads calls over all names in an order without locality.
uint64_t name_of(uint64_t i, uint64_t names) { return i * 7919 % names; }

Status load_services(Context& context, DevServer& server, GrpcLoad& load, uint64_t names) {
  Work work;
  work.method = "uccp.v1.ServiceDiscovery/Register";
  work.request = [](uint64_t i) { return register_request(i / kInstances, i % kInstances, kTtlSeconds); };
  work.verify = [](uint64_t i, std::string_view reply) {
    return bytes_field(reply, 1) == instance_id(i / kInstances, i % kInstances);
  };
  const Plan plan{.in_flight = 1024, .operations = names * kInstances, .server_pids = {server.pid()}};
  const LoadResult result = load.run(work, plan);
  Row row{.metric = fmt::format("Register {} services, 1024 in flight", names * kInstances), .unit = "1/s"};
  row.settings = "closed loop over gRPC, durable";
  row.verified = result.ok;
  row.add_ours(result.rate());
  row.detail("seconds", result.seconds);
  row.detail("p99Ms", result.latency.percentile_ms(0.99));
  row.detail("serverUsPerOp", result.server_us_per_op());
  row.detail("generatorCores", result.generator_cores);
  row.detail("serverRssMb", rss_mb(server.pid()));
  if (result.ok != plan.operations)
    row.problem = fmt::format("{} of {} were registered: {}", result.ok, plan.operations, result.first_error);
  context.emit(row);
  return row.problem.empty() ? Status::ok() : Status(Code::kInternal, "BENCH_FAILED", row.problem);
}

// The closed-loop rate, then the tail at a fixed rate. `Load` is GrpcLoad or RestLoad.
template <typename Load>
void measure(Context& context, Load& load, const Work& work, int server_pid, const std::string& door,
             const std::string& settings) {
  Row rate{.metric = "Discover over " + door + fmt::format(", {} in flight", kInFlight),
           .unit = "1/s",
           .goal = {Goal::Of::kOurs, Better::kHigher, kRate}};
  rate.settings = "closed loop, " + settings;
  Row tail{.metric = fmt::format("Discover p99 over {} at {:.0f}/s", door, kRate),
           .unit = "ms",
           .better = Better::kLower,
           .goal = {Goal::Of::kOurs, Better::kLower, 10}};
  tail.settings = "open loop, " + settings;
  LoadResult closed, open;
  double offered_min = 1;
  for (int i = 0; i < context.pairs(); ++i) {
    closed = load.run(work, {.in_flight = kInFlight, .seconds = context.seconds(), .server_pids = {server_pid}});
    open = load.run(
        work,
        {.in_flight = kOpenLoopInFlight, .rate = kRate, .seconds = context.seconds(), .server_pids = {server_pid}});
    rate.add_ours(closed.rate());
    tail.add_ours(open.latency.percentile_ms(0.99));
    rate.verified += closed.ok;
    tail.verified += open.ok;
    offered_min = std::min(offered_min, open.rate() / kRate);
    if (closed.failed + closed.shed > 0) rate.problem = "failed calls: " + closed.first_error;
    if (open.failed + open.shed > 0) tail.problem = "failed calls: " + open.first_error;
  }
  if (offered_min < 0.99) tail.problem += fmt::format("only {:.0f} % of the rate was answered", offered_min * 100);
  for (const auto& [row, result] : {std::pair<Row&, LoadResult&>{rate, closed}, {tail, open}}) {
    row.detail("p50Ms", result.latency.percentile_ms(0.5));
    row.detail("p99Ms", result.latency.percentile_ms(0.99));
    row.detail("maxMs", result.latency.max_ms());
    row.detail("serverUsPerOp", result.server_us_per_op());
    row.detail("serverCores", result.server_cores);
    row.detail("generatorCores", result.generator_cores);
    context.emit(row);
  }
}

}  // namespace

Status run_discovery(Context& context) {
  const uint64_t names = context.quick ? kNamesShort : kNamesFull;
  UCCP_TRY(const auto server, DevServer::start(context, {}));
  UCCP_TRY(const auto grpc, GrpcLoad::connect(server->grpc(), server->tls()));
  UCCP_RETURN_IF_ERROR(load_services(context, *server, *grpc, names));

  Work work;
  work.method = "uccp.v1.ServiceDiscovery/Discover";
  work.request = [names](uint64_t i) { return discover_request(name_of(i, names)); };
  work.verify = [names](uint64_t i, std::string_view reply) {
    return count_items(reply, 1) == kInstances &&
           bytes_field(bytes_field(reply, 1), 3) == service_name(name_of(i, names));
  };
  const std::string what = fmt::format("{} names x {} instances, ", names, kInstances);
  measure(context, *grpc, work, server->pid(), "gRPC", what + "4 connections, mutual TLS 1.3");

  UCCP_TRY(const auto rest, RestLoad::connect(server->https(), server->tls(), kInFlight));
  work.request = [names, host = server->https()](uint64_t i) {
    return "GET /api/v1/services/discover?name=" + service_name(name_of(i, names)) + " HTTP/1.1\r\nHost: " + host +
           "\r\n\r\n";
  };
  work.verify = [names](uint64_t i, std::string_view body) {
    const std::string wanted = "\"serviceName\":\"" + service_name(name_of(i, names)) + "\"";
    uint64_t count = 0;
    for (size_t at = body.find(wanted); at != std::string_view::npos; at = body.find(wanted, at + wanted.size()))
      ++count;
    return count == kInstances;
  };
  measure(context, *rest, work, server->pid(), "REST", what + "64 keep-alive connections, mutual TLS 1.3");
  return Status::ok();
}

}  // namespace uccp::bench
