// What every benchmark shares: where to work, how long to measure, where rows go.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "bench/row.h"

namespace uccp::bench {

struct Context {
  bool quick = false;    // --short
  std::string bin_dir;   // where uccp and uccp-agent are
  std::string work_dir;  // an empty directory of this run, on a real disk
  std::string rows;      // --rows: only rows whose metric has this text
  std::function<void(const Row&)> emit;

  int pairs() const { return quick ? 2 : 5; }
  bool wants(std::string_view metric) const { return metric.find(rows) != std::string_view::npos; }
  double seconds() const { return quick ? 1.5 : 3; }  // of one sample
  // A line of progress on standard error.
  void say(const std::string& text) const;
};

struct Benchmark {
  std::string_view name;
  std::string_view what;
  Status (*run)(Context& context);
};

Status run_discovery(Context& context);
Status run_discovery_cluster(Context& context);
Status run_elections(Context& context);
Status run_unary(Context& context);
Status run_surface(Context& context);
Status run_submit(Context& context);
Status run_stores(Context& context);
Status run_tasks(Context& context);
Status run_idle(Context& context);
Status run_overload(Context& context);
Status run_consensus_writes(Context& context);
Status run_consensus_reads(Context& context);
Status run_consensus_memory(Context& context);
Status run_consensus_zookeeper(Context& context);
Status run_failover(Context& context);
Status run_growth(Context& context);
Status run_snapshot(Context& context);
Status run_coordination(Context& context);
Status run_coordination_one(Context& context);
Status run_compute(Context& context);
Status run_compute_ray(Context& context);
Status run_scheduling_core(Context& context);
Status run_agents(Context& context);
Status run_jobs(Context& context);
Status run_agents_failover(Context& context);
Status run_scheduling_traces(Context& context);
Status run_events_publish(Context& context);
Status run_events_latency(Context& context);
Status run_events_read(Context& context);
Status run_events_scale(Context& context);
Status run_events_kept(Context& context);

// The hidden command that the unary row starts: a bare gRPC server. Returns the exit code.
int echo_server_main(const std::vector<std::string>& arguments);

}  // namespace uccp::bench
