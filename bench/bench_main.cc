// The command line of uccp-bench: which benchmarks to run and how their rows are printed.
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "base/json.h"
#include "base/log.h"
#include "bench/bench.h"
#include "bench/process.h"
#include "bench/sync_floor.h"
#include "doors/grpc_client/process.h"

namespace uccp::bench {

void Context::say(const std::string& text) const { fmt::print(stderr, "# {}\n", text); }

namespace {

constexpr std::array kBenchmarks = {
    Benchmark{"discovery", "Discover by name at 100,000 services, over gRPC and REST", run_discovery},
    Benchmark{"discovery-cluster", "100,000 services on three nodes: loaded, kept alive, asked for while a node dies",
              run_discovery_cluster},
    Benchmark{"unary", "a unary call through the pipeline, beside a bare gRPC server", run_unary},
    Benchmark{"surface",
              "a call through the whole pipeline over gRPC and REST; a decision among 1,000 rules; audit; encryption",
              run_surface},
    Benchmark{"submit", "durable task submission, beside etcd puts", run_submit},
    Benchmark{"stores", "durable task submission: encrypted, and with the other logs, beside the defaults", run_stores},
    Benchmark{"tasks", "process tasks run to their end, beside bare posix_spawn", run_tasks},
    Benchmark{"idle", "memory of an idle node, time until it is ready", run_idle},
    Benchmark{"consensus-writes", "durable puts into three nodes, beside three nodes of etcd", run_consensus_writes},
    Benchmark{"consensus-reads", "linearizable and stale gets from three nodes, beside etcd", run_consensus_reads},
    Benchmark{"consensus-memory", "memory of a million keys, beside etcd", run_consensus_memory},
    Benchmark{"consensus-zookeeper", "durable writes of one node, beside ZooKeeper", run_consensus_zookeeper},
    Benchmark{"coordination", "locks, registration and watchers over the etcd API, beside etcd", run_coordination},
    Benchmark{"coordination-one", "the same with one node each", run_coordination_one},
    Benchmark{"elections", "time without a leader when one resigns, falls silent, or its node dies", run_elections},
    Benchmark{"events-publish", "durable publishing, beside JetStream and Redis", run_events_publish},
    Benchmark{"events-latency", "from publisher to reader, beside JetStream", run_events_latency},
    Benchmark{"events-read", "reading a stored topic and bytes written, beside JetStream", run_events_read},
    Benchmark{"events-kept", "bytes written for topics that are compacted or kept for long, and their replay",
              run_events_kept},
    Benchmark{"events-scale", "1,000 consumers, 100,000 topics, replay beside the disk", run_events_scale},
    Benchmark{"failover", "time without a write when a leader dies, freezes or is cut off, beside etcd", run_failover},
    Benchmark{"snapshot", "the tail of puts while a new node receives the whole state", run_snapshot},
    Benchmark{"growth", "puts and gets over sizes, groups, nodes and keys; bench/charts.py draws them", run_growth},
    Benchmark{"compute", "calls of Python functions and actors beside Ray", run_compute},
    Benchmark{"compute-ray", "functions on Ray through the platform beside a bare driver", run_compute_ray},
    Benchmark{"scheduling-core", "placement decisions of the core alone with 10,000 workers", run_scheduling_core},
    Benchmark{"jobs", "durable no-op jobs from submission to done, beside BullMQ", run_jobs},
    Benchmark{"agents", "one server with 10,000 agents: connecting, heartbeats, submission, tasks to done", run_agents},
    Benchmark{"agents-failover", "a new leader places again while 100,000 tasks run on 10,000 agents",
              run_agents_failover},
    Benchmark{"scheduling-traces", "batch workloads replayed beside FCFS, EASY and conservative backfilling",
              run_scheduling_traces},
    Benchmark{"overload", "three times saturation while leases are kept alive", run_overload},
};

constexpr const char* kHelp = R"(uccp-bench - load generators and side-by-side comparisons

Usage:
  uccp-bench list
  uccp-bench run NAME|all [--json] [--short] [--rows TEXT] [--dir DIR]
      NAME     a benchmark, or the first word of several: consensus
      --json   one JSON object a row, then one a benchmark
      --short  two pairs of short samples instead of five
      --rows   only rows whose metric has this text; `coordination`, `growth`, `events-scale` and
               `events-kept` do not measure the others
      --dir    where servers put their data; on a real disk, not tmpfs (default: build/bench beside the programs)

Exit codes: 0 all goals met, 1 some not, 2 wrong usage, 3 a benchmark could not run.
)";

struct CommandLine {
  std::vector<std::string> words;
  bool json = false;
  bool quick = false;
  std::string directory;
  std::string rows;
};

std::string own_folder() { return std::filesystem::read_symlink("/proc/self/exe").parent_path(); }

// The commit that the programs were built from, as far as the folder they are in tells.
std::string commit_of(const std::string& folder, const Context& context) {
  const std::string log = context.work_dir + "/commit.txt";
  auto git = Child::start({"/usr/bin/env", "git", "-C", folder, "describe", "--always", "--dirty"}, log);
  if (!git) return "unknown";
  while (!git->ended()) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  std::string text = read_text(log).value_or("");
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text.find(' ') == std::string::npos ? text : "unknown";
}

// Runs one; prints its rows and its last line. Returns the exit code.
int run_one(const Benchmark& benchmark, Context& context, const CommandLine& line) {
  std::vector<Row> rows;
  if (!line.json) fmt::print("{}: {}\n", benchmark.name, benchmark.what);
  context.emit = [&](const Row& row) {
    if (!context.wants(row.metric)) return;
    rows.push_back(row);
    fmt::print("{}\n", line.json ? row.to_json() : row.to_table_line());
    std::fflush(stdout);
  };
  const Status status = benchmark.run(context);
  bool met = status.is_ok() && !rows.empty();
  for (const Row& row : rows) met = met && row.met();
  if (!status.is_ok()) context.say(fmt::format("{} failed: {}", benchmark.name, status.to_string()));
  if (line.json) {
    JsonWriter json;
    json.begin_object().key("name").value(benchmark.name).key("met").value(met).key("rows").begin_array();
    for (const Row& row : rows) json.raw(row.to_json());
    json.end_array().key("commit").value(commit_of(own_folder(), context));
    json.key("cores").value(std::thread::hardware_concurrency()).key("short").value(context.quick);
    if (!status.is_ok()) json.key("error").value(status.to_string());
    fmt::print("{}\n", json.end_object().take());
    std::fflush(stdout);
  }
  return !status.is_ok() ? 3 : met ? 0 : 1;
}

int run_named(const CommandLine& line) {
  const std::string& name = line.words[1];
  Context context;
  context.quick = line.quick;
  context.rows = line.rows;
  context.bin_dir = own_folder();
  const std::string parent = line.directory.empty() ? context.bin_dir + "/../bench" : line.directory;
  std::error_code error;
  std::filesystem::create_directories(parent, error);
  context.work_dir = std::filesystem::weakly_canonical(parent).string() + "/run-XXXXXX";
  if (::mkdtemp(context.work_dir.data()) == nullptr) {
    fmt::print(stderr, "error: cannot make a directory in {}\n", parent);
    return 3;
  }
  int code = 2;
  for (const Benchmark& benchmark : kBenchmarks) {
    // "consensus" stands for all of consensus-...
    if (name != "all" && name != benchmark.name && !benchmark.name.starts_with(name + "-")) continue;
    const int one = run_one(benchmark, context, line);
    code = code == 2 ? one : std::max(code, one);
  }
  std::filesystem::remove_all(context.work_dir, error);
  if (code == 2) fmt::print(stderr, "error: there is no benchmark '{}'\nhint: 'uccp-bench list' names them\n", name);
  return code;
}

int usage() {
  fmt::print(stderr, "{}", kHelp);
  return 2;
}

int run(int argc, char** argv) {
  doors::prepare_grpc();
  log::configure({.level = log::Level::kWarn});
  std::vector<std::string> arguments(argv + 1, argv + argc);
  if (!arguments.empty() && arguments[0] == "echo-server") {
    return echo_server_main({arguments.begin() + 1, arguments.end()});
  }
  if (!arguments.empty() && arguments[0] == "sync-server") {
    return sync_server_main({arguments.begin() + 1, arguments.end()});
  }
  CommandLine line;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == "--json") line.json = true;
    else if (arguments[i] == "--short") line.quick = true;
    else if (arguments[i] == "--dir" && i + 1 < arguments.size()) line.directory = arguments[++i];
    else if (arguments[i] == "--rows" && i + 1 < arguments.size()) line.rows = arguments[++i];
    else if (arguments[i].starts_with("-")) return usage();
    else line.words.push_back(arguments[i]);
  }
  if (line.words.size() == 1 && line.words[0] == "list") {
    for (const Benchmark& benchmark : kBenchmarks) fmt::print("{:<18}{}\n", benchmark.name, benchmark.what);
    return 0;
  }
  if (line.words.size() == 2 && line.words[0] == "run") return run_named(line);
  return usage();
}

}  // namespace
}  // namespace uccp::bench

int main(int argc, char** argv) { return uccp::bench::run(argc, argv); }
