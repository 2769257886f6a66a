// What a node costs that has nothing to do: memory of server and agent, and the time from exec until it is ready.
#include <thread>

#include "bench/bench.h"
#include "bench/process.h"

namespace uccp::bench {

Status run_idle(Context& context) {
  constexpr double kRssGoalMb = 150, kReadyGoalMs = 1000;
  Row server_rss{.metric = "idle server, resident",
                 .unit = "MB",
                 .better = Better::kLower,
                 .goal = {Goal::Of::kOurs, Better::kLower, kRssGoalMb}};
  Row agent_rss = server_rss;
  agent_rss.metric = "idle agent, resident";
  Row ready{.metric = "uccp dev with agent, exec to ready",
            .unit = "ms",
            .better = Better::kLower,
            .goal = {Goal::Of::kOurs, Better::kLower, kReadyGoalMs}};
  Row bare = ready;
  bare.metric = "uccp dev --no-agent, exec to ready";
  double cores = 0;
  for (int i = 0; i < context.pairs(); ++i) {
    {
      UCCP_TRY(const auto alone, DevServer::start(context, {}));
      bare.add_ours(alone->ready_ms());
      ++bare.verified;
    }
    UCCP_TRY(const auto server, DevServer::start(context, {.agent = true}));
    ready.add_ours(server->ready_ms());
    const double cpu = cpu_seconds_of({server->pid()});
    std::this_thread::sleep_for(std::chrono::seconds(context.quick ? 1 : 3));
    cores = (cpu_seconds_of({server->pid()}) - cpu) / (context.quick ? 1 : 3);
    server_rss.add_ours(rss_mb(server->pid()));
    const int agent = server->agent_pid();
    if (agent == 0) agent_rss.problem = "the agent does not run";
    else agent_rss.add_ours(rss_mb(agent));
    for (Row* row : {&ready, &server_rss, &agent_rss}) ++row->verified;
  }
  for (Row* row : {&server_rss, &agent_rss, &ready, &bare}) row->settings = "fresh data directory, certificates made";
  server_rss.detail("idleServerCores", cores);
  for (const Row* row : {&server_rss, &agent_rss, &ready, &bare}) context.emit(*row);
  return Status::ok();
}

}  // namespace uccp::bench
