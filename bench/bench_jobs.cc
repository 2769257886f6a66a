// Durable no-op jobs from submission to done, beside BullMQ on a Redis that syncs every write. On both sides one
// process does the work of all workers, which do nothing, and a completion counts when one who watches has seen it.
#include <fmt/format.h>
#include <simdjson.h>
#include <unistd.h>

#include <chrono>
#include <optional>
#include <thread>
#include <vector>

#include "bench/agents.h"
#include "bench/bench.h"
#include "bench/grpc_load.h"
#include "bench/process.h"
#include "bench/requests.h"
#include "bench/task_watcher.h"

namespace uccp::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kOpenRate = 200;
constexpr uint32_t kTaskId = 1;

struct JobSample {
  std::string version;
  double rate = 0, p99_ms = 0;
  double server_us = 0, generator_us = 0;  // CPU time a job, ours only
};

Result<JobSample> bullmq(const Context& context, uint64_t count, double seconds) {
  const std::string script = context.bin_dir + "/../../bench/bullmq/rate.mjs";
  const std::string installed = context.bin_dir + "/../../bench/bullmq/node_modules/bullmq/package.json";
  if (::access(installed.c_str(), R_OK) != 0)
    return fail(Code::kNotFound, "BULLMQ_MISSING", "BullMQ is not installed (bench/run.sh installs it)");
  const std::string log = context.work_dir + "/bullmq.txt";
  UCCP_TRY(const Ended ended, run_program({"node", script, new_directory(context, "redis"), std::to_string(count),
                                           fmt::format("{}", kOpenRate), fmt::format("{}", seconds)},
                                          log));
  const size_t line = ended.text.rfind("{\"version\"");
  simdjson::dom::parser parser;
  simdjson::dom::element json;
  JobSample sample;
  std::string_view version;
  const bool read = line != std::string::npos &&
                    parser.parse(simdjson::padded_string(ended.text.substr(line))).get(json) == simdjson::SUCCESS &&
                    json["version"].get(version) == simdjson::SUCCESS &&
                    json["rate"].get(sample.rate) == simdjson::SUCCESS &&
                    json["p99Ms"].get(sample.p99_ms) == simdjson::SUCCESS;
  if (!read)
    return fail(Code::kUnavailable, "BULLMQ_FAILED", "BullMQ ended, " + ended.how + ": " + ended.text.substr(0, 300));
  sample.version = version;
  return sample;
}

struct Ours {
  GrpcLoad& load;
  TaskWatcher& watcher;
  int server_pid = 0;
  uint64_t submitted = 0;

  Result<JobSample> run(uint64_t count, double seconds) {
    const Work work{.method = "uccp.v1.TaskScheduling/ScheduleTask",
                    .request = [](uint64_t) { return schedule_request(timed_name(), "true", ""); },
                    .verify = [](uint64_t, std::string_view reply) { return !bytes_field(reply, kTaskId).empty(); }};
    const auto all_done = [&](const LoadResult& result) -> Status {
      submitted += result.all_ok;
      if (result.failed + result.shed + result.expired == 0 && watcher.wait(submitted) >= submitted)
        return Status::ok();
      return Status(Code::kUnavailable, "BENCH_FAILED",
                    "not all tasks ended: " + result.first_error + result.first_shed);
    };
    JobSample sample;
    const double server_s = cpu_seconds_of({server_pid}), generator_s = own_cpu_seconds();
    const auto begin = Clock::now();
    UCCP_RETURN_IF_ERROR(all_done(load.run(work, {.in_flight = 64, .operations = count})));
    sample.rate = static_cast<double>(count) / std::chrono::duration<double>(Clock::now() - begin).count();
    sample.server_us = (cpu_seconds_of({server_pid}) - server_s) * 1e6 / static_cast<double>(count);
    sample.generator_us = (own_cpu_seconds() - generator_s) * 1e6 / static_cast<double>(count);
    (void)watcher.take_latency();
    UCCP_RETURN_IF_ERROR(all_done(load.run(work, {.in_flight = 4096, .rate = kOpenRate, .seconds = seconds})));
    sample.p99_ms = watcher.take_latency().percentile_ms(0.99);
    return sample;
  }
};

}  // namespace

Status run_jobs(Context& context) {
  const uint64_t count = context.quick ? 2'000 : 5'000;
  UCCP_TRY(const auto server, DevServer::start(context, {}));
  UCCP_TRY(const auto agents,
           Agents::start({server->grpc()}, server->tls(), {.agents = 4, .connections_per_node = 4, .cores = 64}));
  UCCP_TRY(const auto load, GrpcLoad::connect(server->grpc(), server->tls()));
  UCCP_TRY(const auto channel, watch_channel(server->grpc(), server->tls()));
  TaskWatcher watcher(*channel);
  Ours ours{*load, watcher, server->pid()};
  if (const auto warm = ours.run(500, 0.5); !warm) return warm.error();
  Row rate{.metric = "durable no-op jobs, submitted 64 at a time, to done",
           .unit = "1/s",
           .goal = {Goal::Of::kRatio, Better::kHigher, 2}};
  Row tail{.metric = fmt::format("durable no-op job, submission to done, p99 at {}/s", kOpenRate),
           .unit = "ms",
           .better = Better::kLower,
           .goal = {Goal::Of::kRatio, Better::kHigher, 2}};
  for (Row* row : {&rate, &tail}) {
    row->peer_name = "BullMQ, one worker of 64 jobs at a time, Redis with appendfsync always";
    row->peer_required = true;
    row->settings = "one node, 4 agents of 100 attempts played by one thread, mutual TLS; theirs without TLS";
  }
  std::vector<double> server_us, generator_us;
  for (int i = 0; i < context.pairs(); ++i) {
    UCCP_TRY(const JobSample mine, ours.run(count, context.seconds()));
    rate.add_ours(mine.rate);
    tail.add_ours(mine.p99_ms);
    server_us.push_back(mine.server_us);
    generator_us.push_back(mine.generator_us);
    rate.verified += count;
    tail.verified += static_cast<uint64_t>(kOpenRate * context.seconds());
    const auto theirs = bullmq(context, count, context.seconds());
    if (!theirs) {
      rate.problem = tail.problem = theirs.error().message();
      break;
    }
    rate.add_peer(theirs->rate);
    tail.add_peer(theirs->p99_ms);
    rate.peer_version = tail.peer_version = theirs->version;
  }
  if (watcher.wrong() > 0) rate.problem = fmt::format("{} tasks did not succeed", watcher.wrong());
  rate.detail("serverUsPerJob", median(server_us));
  rate.detail("generatorUsPerJob", median(generator_us));
  context.emit(rate);
  context.emit(tail);
  return Status::ok();
}

}  // namespace uccp::bench
