// Topics whose events stay while those around them go: one that is compacted, and one that is kept for long beside one
// that is not. What the server writes for each byte that is published, all work behind it included, and how fast the
// topic is replayed from where its events were stored again.
#include <fmt/format.h>

#include <thread>

#include "bench/consensus.h"
#include "bench/event_replay.h"
#include "bench/event_requests.h"
#include "bench/event_stream.h"
#include "bench/files.h"
#include "bench/message_servers.h"
#include "bench/requests.h"

namespace uccp::bench {
namespace {

constexpr size_t kBytes = 1024;
constexpr int kConnections = 8;
constexpr double kGate = 2.2;

// A server that begins early with what it does behind the publishers, so that a short run sees all of it.
struct Server {
  std::unique_ptr<UccpCluster> cluster;
  std::unique_ptr<GrpcLoad> load;
  uint64_t before = 0;

  static Result<Server> start(const Context& context) {
    Server server;
    UCCP_TRY(server.cluster,
             UccpCluster::start(context, {.nodes = 1,
                                          .settings = {{"bus_groups", "1"},
                                                       {"bus_upkeep_interval", "200ms"},
                                                       {"bus_compaction_bytes_per_second", "1073741824"},
                                                       {"bus_rewrite_bytes_per_second", "1073741824"},
                                                       {"bus_log_bytes_min", "67108864"}}}));
    UCCP_TRY(server.load, GrpcLoad::connect(server.cluster->targets(), server.cluster->tls(), kConnections));
    return server;
  }
  Status call(const char* method, size_t in_flight, uint64_t operations,
              const std::function<std::string(uint64_t)>& request) {
    Work work;
    work.method = method;
    work.request = request;
    work.verify = [](uint64_t, std::string_view reply) { return !reply.empty(); };
    const LoadResult result = load->run(work, {.in_flight = in_flight, .operations = operations});
    if (result.ok == operations) return Status::ok();
    return Status(Code::kUnavailable, "BENCH_FAILED",
                  fmt::format("{} of {} calls of {} went well: {}{}", result.ok, operations, method, result.first_error,
                              result.first_shed));
  }
  // Bytes that were written since then for each of these, when nothing more is written and compacted for a while.
  double written_for(uint64_t bytes, double limit_s) {
    const SteadyTime begin = SteadyTime::clock::now();
    uint64_t last = 0;
    double read = 0;
    for (int quiet = 0; quiet < 6 && since(begin) < limit_s;) {
      std::this_thread::sleep_for(std::chrono::milliseconds(500));
      const uint64_t now = bytes_written(cluster->pids());
      const double read_now = cluster->metric(0, "uccp_bus_compaction_read_bytes_total");
      quiet = now - last < (1u << 20) && read_now == read ? quiet + 1 : 0;
      last = now;
      read = read_now;
    }
    return static_cast<double>(last - before) / static_cast<double>(bytes);
  }
};

void note_log(Row& row, const Server& server) {
  const auto metric = [&](const char* name) { return server.cluster->metric(0, name); };
  row.detail("rewrittenMb", metric("uccp_bus_rewritten_bytes_total") / 1e6);
  row.detail("compactedEvents", metric("uccp_bus_compacted_events_total"));
  row.detail("logMb", metric("uccp_bus_log_bytes{group=\"bus-0\"}") / 1e6);
  row.detail("liveMb", metric("uccp_bus_live_bytes{group=\"bus-0\"}") / 1e6);
}

Status run_compacted(Context& context) {
  const uint64_t events = context.quick ? 300'000 : 600'000;
  constexpr uint64_t kKeys = 40'000;
  Row row{.metric = "bytes written for each byte published, compacted, 1 KB, 128 publishers",
          .better = Better::kLower,
          .goal = {Goal::Of::kOurs, Better::kLower, kGate}};
  if (!context.wants(row.metric)) return Status::ok();
  row.settings = fmt::format("{} events of {} keys, what the kernel counts as written by the server", events, kKeys);
  for (int i = 0; i < context.pairs(); ++i) {
    UCCP_TRY(Server server, Server::start(context));
    UCCP_RETURN_IF_ERROR(server.call(kCreateTopic, 1, 1, [](uint64_t) { return create_compacted_request("last"); }));
    server.before = bytes_written(server.cluster->pids());
    UCCP_RETURN_IF_ERROR(server.call(kPublish, 128, events, [](uint64_t n) {
      // Each key comes again after a while, and no two of them side by side.
      return keyed_request("last", fmt::format("key-{}", n * 7919 % kKeys), stamped(kBytes));
    }));
    row.add_ours(server.written_for(events * kBytes, 60));
    uint64_t seen = 0;
    UCCP_RETURN_IF_ERROR(read_stream(server.cluster->target(0), server.cluster->tls(), kSubscribe,
                                     subscribe_request("last", true), [&](std::string_view message) {
                                       seen += delivered_payload(message).has_value();
                                       return true;
                                     }));
    row.verified += seen;
    row.detail("eventsLeft", static_cast<double>(seen));
    if (seen < kKeys) row.problem = fmt::format("{} events of {} keys are left", seen, kKeys);
    note_log(row, server);
  }
  context.emit(row);
  return Status::ok();
}

Status run_long(Context& context) {
  const uint64_t events = context.quick ? 400'000 : 800'000;
  Row written{.metric = "bytes written for each byte published, kept for long, 1 KB, 128 publishers",
              .better = Better::kLower,
              .goal = {Goal::Of::kOurs, Better::kLower, kGate}};
  written.settings = "one event of five in a topic that keeps all, the others in one that keeps 1 MiB";
  Row again{.metric = "replay of a rewritten topic, 1 KB, 1 node",
            .unit = "MB/s",
            .goal = {Goal::Of::kRatio, Better::kHigher, 0.5}};
  again.peer_name = "the same files, read in order";
  again.settings = "the topic of the row before, nothing of the files in the page cache";
  UCCP_TRY(Server server, Server::start(context));
  UCCP_RETURN_IF_ERROR(server.call(kCreateTopic, 1, 1, [](uint64_t) { return create_request("long"); }));
  UCCP_RETURN_IF_ERROR(
      server.call(kCreateTopic, 1, 1, [](uint64_t) { return create_short_request("short", 1u << 20); }));
  server.before = bytes_written(server.cluster->pids());
  UCCP_RETURN_IF_ERROR(server.call(kPublish, 128, events, [](uint64_t n) {
    return publish_request(n % 5 == 0 ? "long" : "short", stamped(kBytes));
  }));
  written.add_ours(server.written_for(events * kBytes, 60));
  note_log(written, server);
  written.verified = events;
  context.emit(written);
  UCCP_RETURN_IF_ERROR(replay(context, *server.cluster, "long", kBytes, events / 5, again));
  context.emit(again);
  return Status::ok();
}

}  // namespace

Status run_events_kept(Context& context) {
  UCCP_RETURN_IF_ERROR(run_compacted(context));
  return run_long(context);
}

}  // namespace uccp::bench
