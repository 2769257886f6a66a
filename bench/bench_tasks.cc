// Tasks run to their end by the agent, beside a bare loop that starts the same program and waits for it, and beside
// HyperQueue.
#include <fmt/format.h>
#include <simdjson.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

#include "bench/bench.h"
#include "bench/grpc_load.h"
#include "bench/process.h"
#include "bench/requests.h"
#include "doors/grpc_client/channel.h"

extern char** environ;

namespace uccp::bench {
namespace {

constexpr auto kPatience = std::chrono::seconds(60);
constexpr uint32_t kTaskId = 1, kTaskStatus = 40, kTaskExitCode = 42, kEventTask = 3;
constexpr uint64_t kSucceeded = 5;
constexpr uint64_t kFirstTerminal = 5;

// Follows WatchTasks and remembers which tasks ended, and how.
class Watcher {
 public:
  explicit Watcher(doors::GrpcChannel& channel) {
    stream_ = channel.stream_async("uccp.v1.TaskScheduling/WatchTasks",
                                   {.on_message = [this](std::string event) { take(event); },
                                    .on_done = [this](Status status) { end(std::move(status)); }});
    stream_->send({});
    stream_->half_close();
  }
  ~Watcher() {
    stream_->cancel();
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [&] { return ended_; });
  }

  // Blocks until `count` tasks have ended. Returns the number that did.
  uint64_t wait(uint64_t count) {
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, kPatience, [&] { return finished_.size() >= count || ended_; });
    return finished_.size();
  }
  uint64_t wrong() {
    std::lock_guard lock(mutex_);
    return wrong_;
  }

 private:
  void take(const std::string& event) {
    const std::string_view task = bytes_field(event, kEventTask);
    const uint64_t status = varint_field(task, kTaskStatus);
    if (status < kFirstTerminal) return;
    std::lock_guard lock(mutex_);
    if (!finished_.emplace(bytes_field(task, kTaskId)).second) return;
    if (status != kSucceeded || varint_field(task, kTaskExitCode) != 0) ++wrong_;
    wake_.notify_all();
  }
  void end(Status) {
    std::lock_guard lock(mutex_);
    ended_ = true;
    wake_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::set<std::string, std::less<>> finished_;
  uint64_t wrong_ = 0;
  bool ended_ = false;
  std::shared_ptr<doors::AsyncStream> stream_;
};

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

struct HyperQueueRun {
  std::string version;
  double rate = 0;
};

// One sample of HyperQueue by a program of its own; bench/run.sh installs what it needs.
Result<HyperQueueRun> hyperqueue_rate(const Context& context, uint64_t count) {
  const std::string python = context.bin_dir + "/../venv-bench/bin/python3";
  const std::string script = context.bin_dir + "/../../bench/hyperqueue_rate.py";
  if (::access(python.c_str(), X_OK) != 0 || ::access(script.c_str(), R_OK) != 0) {
    return fail(Code::kNotFound, "HYPERQUEUE_MISSING", "HyperQueue is not installed (bench/run.sh installs it)");
  }
  const std::string log = context.work_dir + "/hyperqueue.txt";
  UCCP_TRY(Child child, Child::start({python, script, std::to_string(count), "1"}, log));
  std::optional<std::string> ended;
  while (!(ended = child.ended())) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  UCCP_TRY(const std::string text, read_text(log));
  const size_t line = text.rfind("{\"version\"");
  simdjson::dom::parser parser;
  simdjson::dom::element json;
  HyperQueueRun run;
  std::string_view version;
  const bool read = line != std::string::npos &&
                    parser.parse(simdjson::padded_string(text.substr(line))).get(json) == simdjson::SUCCESS &&
                    json["version"].get(version) == simdjson::SUCCESS &&
                    json["rates"].at(0).get(run.rate) == simdjson::SUCCESS;
  if (!read) {
    return fail(Code::kUnavailable, "HYPERQUEUE_FAILED", "HyperQueue ended, " + *ended + ": " + text.substr(0, 300));
  }
  run.version = version;
  return run;
}

}  // namespace

Status run_tasks(Context& context) {
  const uint64_t count = context.quick ? 500 : 1'500;
  UCCP_TRY(const auto server, DevServer::start(context, {.agent = true}));
  UCCP_TRY(const auto load, GrpcLoad::connect(server->grpc(), server->tls()));
  doors::ChannelOptions options;
  options.target = server->grpc();
  options.ca_pem = server->tls().ca_pem;
  options.certificate_pem = server->tls().certificate_pem;
  options.key_pem = server->tls().key_pem;
  UCCP_TRY(const auto channel, doors::GrpcChannel::connect(options));
  Watcher watcher(*channel);
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
    if (const auto peer = hyperqueue_rate(context, count)) {
      beside.add_peer(peer->rate);
      beside.peer_version = peer->version;
    } else {
      beside.problem = peer.error().message();
    }
  }
  if (watcher.wrong() > 0) beside.problem = row.problem = fmt::format("{} tasks did not succeed", watcher.wrong());
  const double n = static_cast<double>(count);
  row.detail("forkExecShare", row.ratio().value_or(0));
  row.detail("serverUsPerTask", server_cpu / n * 1e6);
  row.detail("agentUsPerTask", agent_cpu / n * 1e6);  // without its children
  row.detail("generatorUsPerTask", own_cpu / n * 1e6);
  row.detail("wallUsPerTask", seconds / n * 1e6);
  context.emit(row);
  context.emit(beside);
  return Status::ok();
}

}  // namespace uccp::bench
