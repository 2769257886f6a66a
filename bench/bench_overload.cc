// Three times more durable writes than the server can take, while leases are kept alive beside them.
#include <fmt/format.h>

#include <atomic>
#include <thread>

#include "bench/bench.h"
#include "bench/grpc_load.h"
#include "bench/process.h"
#include "bench/requests.h"

namespace uccp::bench {
namespace {

constexpr uint64_t kLeases = 1'000;
constexpr int64_t kLeaseTtlS = 10;
constexpr double kBeatsPerTtl = 3;
constexpr uint64_t kLeaseNames = 1'000'000;  // names of the leases; those of the load are below
constexpr uint64_t kLoadNames = 10'000;      // the load writes these again and again, so the state does not grow
constexpr double kFactor = 3;
constexpr size_t kOverloadInFlight = 20'000;
constexpr double kRssGoalMb = 512;
constexpr char kRegister[] = "uccp.v1.ServiceDiscovery/Register";

std::string lease_id(uint64_t i) { return instance_id(kLeaseNames, i % kLeases); }

Work id_work(const char* method, uint32_t answer_field) {
  Work work;
  work.method = method;
  work.request = [](uint64_t i) { return id_request(lease_id(i)); };
  work.verify = [answer_field](uint64_t, std::string_view reply) { return !bytes_field(reply, answer_field).empty(); };
  return work;
}

Work register_work(bool leases) {
  Work work;
  work.method = kRegister;
  work.request = [leases](uint64_t i) {
    return leases ? register_request(kLeaseNames, i % kLeases, kLeaseTtlS) : register_request(i % kLoadNames, 0, 3600);
  };
  work.verify = [leases](uint64_t i, std::string_view reply) {
    return bytes_field(reply, 1) == (leases ? lease_id(i) : instance_id(i % kLoadNames, 0));
  };
  return work;
}

}  // namespace

Status run_overload(Context& context) {
  const double seconds = context.quick ? 6 : 12;  // longer than a TTL in a full run
  UCCP_TRY(const auto server, DevServer::start(context, {}));
  UCCP_TRY(const auto load, GrpcLoad::connect(server->grpc(), server->tls(), 16));
  UCCP_TRY(const auto beats, GrpcLoad::connect(server->grpc(), server->tls(), 1));
  UCCP_TRY(const auto checks, GrpcLoad::connect(server->grpc(), server->tls(), 1));
  const Work writing = register_work(false);
  (void)load->run(writing, {.in_flight = 512, .operations = kLoadNames});
  const LoadResult saturated =
      load->run(writing, {.in_flight = 512, .seconds = context.seconds(), .server_pids = {server->pid()}});
  const double rss_before = rss_mb(server->pid());
  const LoadResult made = beats->run(register_work(true), {.in_flight = 64, .operations = kLeases});
  if (made.ok != kLeases) return Status(Code::kInternal, "BENCH_FAILED", "cannot make the leases: " + made.first_error);

  LoadResult beating;
  std::atomic<bool> checked{false};
  std::thread keeper([&] {
    beating = beats->run(id_work("uccp.v1.ServiceDiscovery/Heartbeat", 1), {.in_flight = kLeases,
                                                                            .rate = kLeases * kBeatsPerTtl / kLeaseTtlS,
                                                                            .seconds = 600,
                                                                            .warm_up_s = 0,
                                                                            .stop = &checked});
  });
  const LoadResult flooded = load->run(writing, {.in_flight = kOverloadInFlight,
                                                 .rate = kFactor * saturated.rate(),
                                                 .seconds = seconds,
                                                 .warm_up_s = 0,
                                                 .late_ms_max = 100,
                                                 .deadline_ms = 2'000,
                                                 .server_pids = {server->pid()}});
  // What was queued may take a moment; a read that is refused says nothing about its lease.
  LoadResult alive;
  Work reading = id_work("uccp.v1.ServiceDiscovery/GetServiceMetadata", 1);
  reading.consistency = "linearizable";
  for (int i = 0; i < 20; ++i) {
    alive = checks->run(reading, {.in_flight = 64, .operations = kLeases});
    if (alive.ok + alive.not_found == kLeases) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(250));
  }
  checked = true;
  keeper.join();
  const double rss_max = rss_max_mb(server->pid());

  Row goodput{.metric = fmt::format("Register at {:.0f} x saturation: goodput", kFactor),
              .unit = "1/s",
              .goal = {Goal::Of::kRatio, Better::kHigher, 0.8}};
  goodput.peer_name = "the same server, saturated: 512 in flight";
  goodput.peer_required = goodput.durable = true;
  goodput.settings =
      fmt::format("open loop for {:.0f} s, {} in flight at most, deadline 2 s", seconds, kOverloadInFlight);
  goodput.add_peer(saturated.rate());
  goodput.add_ours(flooded.rate());
  goodput.verified = flooded.ok;
  const auto pass = SyncCounter::start(context, server->pid());
  if (pass) {
    SyncCounter counter = std::move(const_cast<SyncCounter&>(*pass));
    const LoadResult traced = load->run(writing, {.in_flight = 512, .seconds = 1});
    const double syncs = static_cast<double>(counter.stop());
    if (traced.all_ok > 0) goodput.syncs_ours = goodput.syncs_peer = syncs / static_cast<double>(traced.all_ok);
  }
  const auto offered = static_cast<double>(flooded.ok + flooded.shed + flooded.expired + flooded.failed);
  goodput.detail("wantedPerSecond", kFactor * saturated.rate());
  goodput.detail("offeredPerSecond", offered / seconds);
  goodput.detail("shed", static_cast<double>(flooded.shed));
  goodput.detail("expired", static_cast<double>(flooded.expired));
  goodput.detail("failed", static_cast<double>(flooded.failed));
  goodput.detail("notSent", static_cast<double>(flooded.not_sent));
  goodput.detail("p50Ms", flooded.latency.percentile_ms(0.5));
  goodput.detail("p99Ms", flooded.latency.percentile_ms(0.99));
  goodput.detail("generatorCores", flooded.generator_cores);
  goodput.detail("serverCores", flooded.server_cores);
  goodput.detail("saturatedServerUsPerOp", saturated.server_us_per_op());
  goodput.detail("saturatedP99Ms", saturated.latency.percentile_ms(0.99));
  if (flooded.failed > 0) goodput.problem = "failed calls: " + flooded.first_error;
  context.emit(goodput);

  Row lost{.metric = fmt::format("leases lost of {}, TTL {} s", kLeases, kLeaseTtlS),
           .better = Better::kLower,
           .goal = {Goal::Of::kOurs, Better::kLower, 1}};
  lost.settings =
      fmt::format("{:.0f} heartbeats a second on a connection of their own", kLeases * kBeatsPerTtl / kLeaseTtlS);
  lost.add_ours(static_cast<double>(kLeases - alive.ok));
  if (alive.ok + alive.not_found != kLeases)
    lost.problem = "reads after the overload fail: " + alive.first_shed + alive.first_error;
  lost.verified = beating.ok + alive.ok;
  lost.detail("heartbeats", static_cast<double>(beating.ok));
  lost.detail("heartbeatsShed", static_cast<double>(beating.shed));
  lost.detail("heartbeatsExpired", static_cast<double>(beating.expired));
  lost.detail("heartbeatsNotFound", static_cast<double>(beating.not_found));
  lost.detail("heartbeatP99Ms", beating.latency.percentile_ms(0.99));
  lost.detail("heartbeatMaxMs", beating.latency.max_ms());
  if (!beating.first_shed.empty()) lost.problem += "a heartbeat was shed: " + beating.first_shed + "; ";
  if (!beating.first_error.empty()) lost.problem += "a heartbeat failed: " + beating.first_error;
  context.emit(lost);

  Row memory{.metric = "largest resident set under overload",
             .unit = "MB",
             .better = Better::kLower,
             .goal = {Goal::Of::kOurs, Better::kLower, kRssGoalMb}};
  memory.settings = goodput.settings;
  memory.add_ours(rss_max);
  memory.verified = 1;
  memory.detail("before", rss_before);
  memory.detail("after", rss_mb(server->pid()));
  context.emit(memory);
  return Status::ok();
}

}  // namespace uccp::bench
