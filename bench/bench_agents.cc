// A server with 10,000 agents, played by one thread of this process: how fast they connect, what their heartbeats cost,
// tasks from submission to done, and a change of leaders while 100,000 tasks run.
#include <fmt/format.h>
#include <signal.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

#include "bench/agents.h"
#include "bench/bench.h"
#include "bench/cluster.h"
#include "bench/grpc_load.h"
#include "bench/process.h"
#include "bench/requests.h"

namespace uccp::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr char kSchedule[] = "uccp.v1.TaskScheduling/ScheduleTask";
constexpr auto kPatience = std::chrono::seconds(120);
constexpr auto kPoll = std::chrono::milliseconds(2);
constexpr double kSubmitRate = 1'000;

int64_t now_ns() { return std::chrono::nanoseconds(Clock::now().time_since_epoch()).count(); }

// Seconds until the condition held. Errors: unavailable BENCH_FAILED after two minutes.
Result<double> seconds_until(const std::string& what, const std::function<bool()>& condition) {
  const auto begin = Clock::now();
  for (; !condition(); std::this_thread::sleep_for(kPoll)) {
    if (Clock::now() - begin > kPatience) return fail(Code::kUnavailable, "BENCH_FAILED", "it did not happen: " + what);
  }
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

Work submit_work() {
  return {.method = kSchedule,
          .request = [](uint64_t) { return schedule_request(timed_name(), "true", ""); },
          .verify = [](uint64_t, std::string_view reply) { return !bytes_field(reply, 1).empty(); }};
}

// Submits exactly so many tasks.
Status submit(GrpcLoad& load, uint64_t count, size_t in_flight) {
  const LoadResult result = load.run(submit_work(), {.in_flight = in_flight, .operations = count});
  if (result.ok == count) return Status::ok();
  return Status(
      Code::kUnavailable, "BENCH_FAILED",
      fmt::format("{} of {} tasks were taken: {}{}", result.ok, count, result.first_error, result.first_shed));
}

struct Fleet {
  std::unique_ptr<DevServer> server;
  std::unique_ptr<Agents> agents;
  std::unique_ptr<GrpcLoad> load;
};

Status measure_done(Context& context, Fleet& fleet, const std::string& settings) {
  const uint64_t count = context.quick ? 10'000 : 50'000;
  Row rate{.metric = "no-op tasks from submission to done, all agents", .unit = "1/s", .settings = settings};
  const uint64_t before = fleet.agents->finished();
  const auto begin = Clock::now();
  UCCP_RETURN_IF_ERROR(submit(*fleet.load, count, 256));
  UCCP_TRY(const double rest,
           seconds_until("all tasks done", [&] { return fleet.agents->finished() >= before + count; }));
  rate.add_ours(static_cast<double>(count) / std::chrono::duration<double>(Clock::now() - begin).count());
  rate.detail("secondsAfterTheLastSubmission", rest);
  const LatencyHistogram placement = fleet.agents->take_placement();
  rate.detail("placementP50Ms", placement.percentile_ms(0.5));
  rate.detail("placementP99Ms", placement.percentile_ms(0.99));
  rate.verified = count;
  context.emit(rate);
  return Status::ok();
}

Status measure_submission(Context& context, Fleet& fleet, const std::string& settings) {
  Row tail{.metric = "ScheduleTask p99 at 1,000/s while all agents work",
           .unit = "ms",
           .better = Better::kLower,
           .goal = {Goal::Of::kOurs, Better::kLower, 20},
           .settings = settings};
  LatencyHistogram placement;
  for (int i = 0; i < context.pairs(); ++i) {
    (void)fleet.agents->take_placement();
    const LoadResult result = fleet.load->run(
        submit_work(),
        {.in_flight = 4096, .rate = kSubmitRate, .seconds = context.seconds(), .server_pids = {fleet.server->pid()}});
    tail.add_ours(result.latency.percentile_ms(0.99));
    tail.verified += result.ok;
    if (result.failed + result.shed + result.expired > 0) tail.problem = result.first_error + result.first_shed;
    placement = fleet.agents->take_placement();
  }
  tail.detail("placementP50Ms", placement.percentile_ms(0.5));
  tail.detail("placementP99Ms", placement.percentile_ms(0.99));
  context.emit(tail);
  return Status::ok();
}

}  // namespace

Status run_agents(Context& context) {
  const size_t count = context.quick ? 2'000 : 10'000;
  Fleet fleet;
  UCCP_TRY(fleet.server, DevServer::start(context, {.flags = {"--heartbeat-interval", "5s"}}));
  const std::string settings = fmt::format("{} agents on 16 connections, heartbeats every 5 s, one node", count);
  UCCP_TRY(fleet.agents, Agents::start({fleet.server->grpc()}, fleet.server->tls(), {.agents = count}));
  UCCP_TRY(const double connect,
           seconds_until("all agents connected", [&] { return fleet.agents->connected() == count; }));
  Row connected{.metric = "agents connect, each Hello durable", .unit = "1/s", .settings = settings};
  connected.add_ours(static_cast<double>(count) / connect);
  connected.detail("seconds", connect);
  connected.detail("serverRssMb", rss_mb(fleet.server->pid()));
  connected.verified = count;
  const double cpu = cpu_seconds_of({fleet.server->pid()});
  const auto idle = Clock::now();
  std::this_thread::sleep_for(std::chrono::duration<double>(context.quick ? 5 : 10));
  connected.detail("serverCoresOfHeartbeatsAlone", (cpu_seconds_of({fleet.server->pid()}) - cpu) /
                                                       std::chrono::duration<double>(Clock::now() - idle).count());
  if (fleet.agents->reconnects() > 0) connected.problem = fmt::format("{} streams ended", fleet.agents->reconnects());
  context.emit(connected);
  UCCP_TRY(fleet.load, GrpcLoad::connect(fleet.server->grpc(), fleet.server->tls()));
  UCCP_RETURN_IF_ERROR(measure_submission(context, fleet, settings));
  return measure_done(context, fleet, settings);
}

// From the death of the leader to the first task that its successor places, and until all agents are back with what
// they run.
Status run_agents_failover(Context& context) {
  const size_t count = context.quick ? 1'000 : 10'000;
  const uint64_t running = count * 10;
  UCCP_TRY(const auto cluster, UccpCluster::start(context, {.settings = {{"heartbeat_interval", "5s"}}}));
  UCCP_TRY(const size_t first, cluster->leader());
  // The agents find the leader by themselves; the load goes to a node that stays.
  UCCP_TRY(const auto agents, Agents::start(cluster->targets(), cluster->tls(), {.agents = count, .hold = true}));
  UCCP_TRY(const double connect, seconds_until("all agents connected", [&] { return agents->connected() == count; }));
  const size_t stays = (first + 1) % cluster->size();
  UCCP_TRY(const auto load, GrpcLoad::connect(cluster->target(stays), cluster->tls()));
  UCCP_RETURN_IF_ERROR(submit(*load, running, 256));
  UCCP_TRY(const double placed, seconds_until("all tasks run", [&] { return agents->launched() >= running; }));
  context.say(fmt::format("{} agents in {:.1f} s; {} tasks run, the last {:.1f} s after its submission", count, connect,
                          running, placed));
  UCCP_TRY(const size_t leader, cluster->leader());
  // Other tasks come all the time.
  std::atomic<bool> stop{false};
  std::thread others([&] {
    (void)load->run(submit_work(), {.in_flight = 4096, .rate = 100, .seconds = 110, .warm_up_s = 0, .stop = &stop});
  });
  Row row{.metric = fmt::format("leader killed with {} tasks running: until tasks are placed again", running),
          .unit = "ms",
          .better = Better::kLower,
          .goal = {Goal::Of::kOurs, Better::kLower, 5'000},
          .settings = fmt::format("3 nodes, {} agents, default timeouts", count)};
  const int64_t killed_at = now_ns();
  cluster->kill(leader, SIGKILL);
  // What the dead leader had sent before may still arrive.
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  agents->watch_launches();
  const auto again = seconds_until("a task placed by the new leader", [&] { return agents->first_launch_ns() != 0; });
  const auto all = seconds_until("all agents back", [&] { return agents->connected() == count; });
  stop = true;
  others.join();
  if (!again) row.problem = again.error().message();
  else row.add_ours(static_cast<double>(agents->first_launch_ns() - killed_at) / 1e6);
  // Streams through a node that lives do not end with the leader.
  const int64_t back_ns = std::max<int64_t>(0, agents->last_welcome_ns() - killed_at);
  if (all) row.detail("allAgentsBackMs", static_cast<double>(back_ns) / 1e6);
  else row.problem = all.error().message();
  row.detail("attemptsKilled", static_cast<double>(agents->killed()));
  if (agents->killed() > 0) row.problem = fmt::format("{} attempts that ran were not known any more", agents->killed());
  row.verified = running;
  context.emit(row);
  return Status::ok();
}

}  // namespace uccp::bench
