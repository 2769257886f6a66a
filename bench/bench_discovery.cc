// Discovery at 100,000 registered instances: 10,000 names of ten each, asked for by name over gRPC and REST.
#include <fmt/format.h>

#include "bench/bench.h"
#include "bench/door_rows.h"
#include "bench/grpc_load.h"
#include "bench/process.h"
#include "bench/requests.h"
#include "bench/rest_load.h"

namespace uccp::bench {
namespace {

constexpr uint64_t kInstances = 10;
constexpr uint64_t kNamesFull = 10'000;
constexpr uint64_t kNamesShort = 2'000;
constexpr DoorGoals kGoals{.rate = 10'000, .p99_ms = 10};
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
  measure_door(context, *grpc, work, server->pid(),
               {"Discover", "gRPC", what + "4 connections, mutual TLS 1.3", kGoals});

  UCCP_TRY(const auto rest, RestLoad::connect(server->https(), server->tls(), kDoorInFlight));
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
  measure_door(context, *rest, work, server->pid(),
               {"Discover", "REST", what + "64 keep-alive connections, mutual TLS 1.3", kGoals});
  return Status::ok();
}

}  // namespace uccp::bench
