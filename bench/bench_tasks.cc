// Tasks run to their end by the agent, beside a bare loop that starts the same program and waits for it, HyperQueue and
// Slurm.
#include <fmt/format.h>
#include <simdjson.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <optional>
#include <thread>

#include "bench/bench.h"
#include "bench/grpc_load.h"
#include "bench/process.h"
#include "bench/requests.h"
#include "bench/task_watcher.h"

extern char** environ;

namespace uccp::bench {
namespace {

constexpr uint32_t kTaskId = 1;

// posix_spawn and waitpid of /bin/true, one loop a core.
double bare_spawn_rate(double seconds) {
  std::atomic<uint64_t> done{0};
  const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  std::vector<std::thread> loops;
  for (unsigned i = 0; i < std::thread::hardware_concurrency(); ++i) {
    loops.emplace_back([&] {
      char program[] = "/bin/true";
      char* arguments[] = {program, nullptr};
      while (std::chrono::steady_clock::now() < until) {
        pid_t pid = 0;
        int status = 0;
        if (::posix_spawn(&pid, program, nullptr, nullptr, arguments, environ) != 0) return;
        if (::waitpid(pid, &status, 0) == pid && status == 0) done.fetch_add(1);
      }
    });
  }
  for (std::thread& loop : loops) loop.join();
  return static_cast<double>(done.load()) / seconds;
}

struct PeerRun {
  std::string version;
  double rate = 0;
};

// One sample of a peer by a program of its own, which starts the peer; bench/run.sh installs what it needs.
Result<PeerRun> peer_rate(const Context& context, const std::string& python, const std::string& name, uint64_t count) {
  const std::string script = context.bin_dir + "/../../bench/" + name + "_rate.py";
  if (::access(python.c_str(), X_OK) != 0 || ::access(script.c_str(), R_OK) != 0)
    return fail(Code::kNotFound, "PEER_MISSING", name + " is not installed (bench/run.sh installs it)");
  const std::string log = context.work_dir + "/" + name + ".txt";
  UCCP_TRY(const Ended ended, run_program({python, script, std::to_string(count), "1"}, log));
  const size_t line = ended.text.rfind("{\"version\"");
  simdjson::dom::parser parser;
  simdjson::dom::element json;
  PeerRun run;
  std::string_view version;
  const bool read = line != std::string::npos &&
                    parser.parse(simdjson::padded_string(ended.text.substr(line))).get(json) == simdjson::SUCCESS &&
                    json["version"].get(version) == simdjson::SUCCESS &&
                    json["rates"].at(0).get(run.rate) == simdjson::SUCCESS;
  if (!read)
    return fail(Code::kUnavailable, "PEER_FAILED", name + " ended, " + ended.how + ": " + ended.text.substr(0, 300));
  run.version = version;
  return run;
}

void add_peer_sample(Row& row, const Result<PeerRun>& peer) {
  if (!peer) {
    row.problem = peer.error().message();
    return;
  }
  row.add_peer(peer->rate);
  row.peer_version = peer->version;
}

}  // namespace

Status run_tasks(Context& context) {
  const uint64_t count = context.quick ? 500 : 1'500;
  UCCP_TRY(const auto server, DevServer::start(context, {.agent = true}));
  UCCP_TRY(const auto load, GrpcLoad::connect(server->grpc(), server->tls()));
  UCCP_TRY(const auto channel, watch_channel(server->grpc(), server->tls()));
  TaskWatcher watcher(*channel);
  Work work;
  work.method = "uccp.v1.TaskScheduling/ScheduleTask";
  work.request = [](uint64_t i) { return schedule_request(fmt::format("true-{:08}", i), "true", ""); };
  work.verify = [](uint64_t, std::string_view reply) { return !bytes_field(reply, kTaskId).empty(); };

  Row row{.metric = "process tasks finished", .unit = "1/s"};
  row.peer_name = "posix_spawn and waitpid of /bin/true, one loop a core";
  row.settings = fmt::format("{} tasks of `true` submitted at once, one agent, default isolation", count);
  row.peer_required = true;
  Row beside{
      .metric = "process tasks beside HyperQueue", .unit = "1/s", .goal = {Goal::Of::kRatio, Better::kHigher, 0.9}};
  beside.peer_name = "HyperQueue, one server and worker, output not kept";
  beside.settings = row.settings + "; ours with its limits, users and control groups, theirs without";
  beside.peer_required = true;
  Row slurm{.metric = "process tasks beside Slurm", .unit = "1/s", .goal = {Goal::Of::kRatio, Better::kHigher, 5}};
  slurm.peer_name = "Slurm, one controller and node, a job array of a tenth as many, output not kept";
  slurm.settings = beside.settings;
  slurm.peer_required = true;
  double server_cpu = 0, agent_cpu = 0, own_cpu = 0, seconds = 0;
  uint64_t expected = 0;
  for (int i = 0; i < context.pairs() && row.problem.empty(); ++i) {
    const double server_before = cpu_seconds_of({server->pid()}), agent_before = cpu_seconds_of({server->agent_pid()});
    const double own_before = own_cpu_seconds();
    const auto begin = std::chrono::steady_clock::now();
    const LoadResult submitted = load->run(work, {.in_flight = 64, .operations = count, .first_index = expected});
    expected += submitted.ok;
    const uint64_t finished = watcher.wait(expected);
    seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    server_cpu = cpu_seconds_of({server->pid()}) - server_before;
    agent_cpu = cpu_seconds_of({server->agent_pid()}) - agent_before;
    own_cpu = own_cpu_seconds() - own_before;
    if (submitted.ok != count) row.problem = "not all tasks were taken: " + submitted.first_error;
    if (finished < expected) row.problem = fmt::format("{} of {} tasks ended within 60 s", finished, expected);
    row.add_ours(static_cast<double>(count) / seconds);
    row.verified += count;
    row.add_peer(bare_spawn_rate(context.quick ? 0.5 : 1));
    beside.add_ours(static_cast<double>(count) / seconds);
    beside.verified += count;
    add_peer_sample(beside, peer_rate(context, context.bin_dir + "/../venv-bench/bin/python3", "hyperqueue", count));
    // It takes minutes for as many, and no longer for each of fewer.
    slurm.add_ours(static_cast<double>(count) / seconds);
    slurm.verified += count;
    add_peer_sample(slurm, installed("slurmctld") ? peer_rate(context, "/usr/bin/python3", "slurm", count / 10)
                                                  : fail(Code::kNotFound, "PEER_MISSING", "Slurm is not installed"));
  }
  if (watcher.wrong() > 0)
    slurm.problem = beside.problem = row.problem = fmt::format("{} tasks did not succeed", watcher.wrong());
  const double n = static_cast<double>(count);
  row.detail("forkExecShare", row.ratio().value_or(0));
  row.detail("serverUsPerTask", server_cpu / n * 1e6);
  row.detail("agentUsPerTask", agent_cpu / n * 1e6);  // without its children
  row.detail("generatorUsPerTask", own_cpu / n * 1e6);
  row.detail("wallUsPerTask", seconds / n * 1e6);
  context.emit(row);
  context.emit(beside);
  context.emit(slurm);
  return Status::ok();
}

}  // namespace uccp::bench
