// The event bus beside JetStream of NATS and streams of Redis: durable publishing, reading what is stored, the time
// from one end to the other, bytes written. All sides confirm a message when it is synced, on a quorum of the nodes,
// and speak TLS 1.3 with client certificates.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>

#include "bench/consensus.h"
#include "bench/event_requests.h"
#include "bench/event_stream.h"
#include "bench/event_transactions.h"
#include "bench/message_load.h"
#include "bench/message_servers.h"
#include "bench/requests.h"
#include "bench/sync_floor.h"

namespace uccp::bench {
namespace {

constexpr int kConnections = 8;

// All three sides for one number of nodes.
struct Sides {
  std::unique_ptr<UccpCluster> uccp;
  std::unique_ptr<NatsServers> nats;
  std::unique_ptr<RedisServer> redis;
  std::unique_ptr<SyncFloor> floor;  // of one node
  std::string missing;
  std::unique_ptr<GrpcLoad> ours;
  std::unique_ptr<MessageLoad> theirs, redis_load;
  std::string name;  // of topic, stream and key

  static Result<std::unique_ptr<Sides>> start(const Context& context, size_t nodes) {
    auto sides = std::make_unique<Sides>();
    UccpClusterOptions options;
    options.nodes = nodes;
    UCCP_TRY(sides->uccp, UccpCluster::start(context, options));
    auto nats = NatsServers::start(context, *sides->uccp);
    if (nats) sides->nats = std::move(*nats);
    else sides->missing = nats.error().message();
    if (nodes == 1) {
      auto redis = RedisServer::start(context, *sides->uccp);
      if (redis) sides->redis = std::move(*redis);
      else context.say(redis.error().message());
      UCCP_TRY(sides->floor, SyncFloor::start(context, *sides->uccp));
    }
    return sides;
  }

  // A topic and a stream that nothing was published to yet, and new connections: idle ones are closed.
  Status fresh() {
    UCCP_TRY(ours, GrpcLoad::connect(uccp->targets(), uccp->tls(), kConnections));
    static int count = 0;
    name = "bench" + std::to_string(++count);
    Work make;
    make.method = kCreateTopic;
    make.request = [&](uint64_t) { return create_request(name); };
    make.verify = [](uint64_t, std::string_view) { return true; };
    const LoadResult made = ours->run(make, {.in_flight = 1, .operations = 1});
    if (made.ok != 1)
      return Status(Code::kUnavailable, "BENCH_FAILED", "no topic: " + made.first_error + made.first_shed);
    const TlsIdentity& tls = uccp->tls();
    if (nats) {
      UCCP_RETURN_IF_ERROR(nats->make_stream(name, tls));
      UCCP_TRY(theirs,
               MessageLoad::connect(nats->targets(), tls, [this] { return nats_protocol(name); }, kConnections));
    }
    if (redis) {
      UCCP_TRY(redis_load,
               MessageLoad::connect({redis->target()}, tls, [this] { return redis_protocol(name); }, kConnections));
    }
    return Status::ok();
  }

  LoadResult publish(size_t bytes, Plan plan) {
    plan.server_pids = uccp->pids();
    Work work;
    work.method = kPublish;
    work.request = [&](uint64_t) { return publish_request(name, stamped(bytes)); };
    work.verify = [](uint64_t, std::string_view reply) { return !bytes_field(reply, 1).empty(); };
    return ours->run(work, plan);
  }
  LoadResult publish_there(size_t bytes, Plan plan) {
    plan.server_pids = nats->pids();
    return theirs->run([bytes](uint64_t) { return stamped(bytes); }, plan);
  }

  void describe(Row& row, const std::string& settings) const {
    row.peer_name = "NATS JetStream";
    row.peer_version = nats ? nats->version() : "";
    row.peer_required = true;
    row.settings = settings;
    if (!nats) row.problem = missing;
  }
};

void note(Row& row, const char* prefix, const LoadResult& result) {
  const auto named = [prefix](const char* what) { return std::string(prefix) + what; };
  row.detail(named("P50Ms"), result.latency.percentile_ms(0.5));
  row.detail(named("P99Ms"), result.latency.percentile_ms(0.99));
  row.detail(named("ServerUsPerOp"), result.server_us_per_op());
  row.detail(named("ServerCores"), result.server_cores);
  row.detail(named("GeneratorCores"), result.generator_cores);
}

struct Level {
  size_t publishers;
  size_t bytes;
};

Status run_publish(Context& context, Sides& sides, const Level& level, double seconds) {
  const size_t nodes = sides.uccp->size();
  Row row{.metric = fmt::format("publish, {} publishers, {} B, {} node{}", level.publishers, level.bytes, nodes,
                                nodes == 1 ? "" : "s"),
          .unit = "1/s",
          .goal = {Goal::Of::kRatio, Better::kHigher, 1.5}};
  sides.describe(row, fmt::format("closed loop, {} connections, one partition", kConnections));
  LoadResult mine, other;
  double redis_rate = 0, floor_rate = 0;
  for (int i = 0; i < context.pairs(); ++i) {
    UCCP_RETURN_IF_ERROR(sides.fresh());
    const Plan plan{.in_flight = level.publishers, .seconds = seconds, .warm_up_s = 0.3};
    mine = sides.publish(level.bytes, plan);
    row.add_ours(mine.rate());
    note_failures(row, mine, true);
    if (sides.nats) {
      other = sides.publish_there(level.bytes, plan);
      row.add_peer(other.rate());
      note_failures(row, other, false);
    }
    if (sides.redis_load) {
      Plan there = plan;
      there.server_pids = {sides.redis->pid()};
      redis_rate = sides.redis_load->run([&](uint64_t) { return stamped(level.bytes); }, there).rate();
    }
    if (sides.floor && level.publishers == 1) floor_rate = sides.floor->run(level.bytes, plan).rate();
  }
  note(row, "ours", mine);
  if (sides.nats) note(row, "peer", other);
  if (redis_rate > 0) row.detail("redisRate", redis_rate);
  if (floor_rate > 0) {
    row.detail("floorRate", floor_rate);
    row.detail("syncRate", syncs_per_second(context, level.bytes, seconds));
  }
  context.emit(row);
  return Status::ok();
}

// The number that one node has to reach whatever others do.
Status run_floor(Context& context, Sides& sides, double seconds) {
  Row row{.metric = "publish, 64 publishers, 100 B, 1 node",
          .unit = "1/s",
          .goal = {Goal::Of::kOurs, Better::kHigher, 30'000}};
  row.settings = fmt::format("closed loop, {} connections, one partition", kConnections);
  LoadResult mine;
  for (int i = 0; i < context.pairs(); ++i) {
    UCCP_RETURN_IF_ERROR(sides.fresh());
    mine = sides.publish(100, {.in_flight = 64, .seconds = seconds, .warm_up_s = 0.3});
    row.add_ours(mine.rate());
    note_failures(row, mine, true);
  }
  note(row, "ours", mine);
  context.emit(row);
  return Status::ok();
}

Status run_bytes(Context& context, Sides& sides, double seconds) {
  constexpr size_t kBytes = 1024;
  Row row{.metric = "bytes written for each byte published, 1 KB, 128 publishers",
          .better = Better::kLower,
          .goal = {Goal::Of::kOurs, Better::kLower, 1.15}};
  sides.describe(row, "what the kernel counts as written by the server, retention by age");
  row.peer_required = false;
  for (int i = 0; i < context.pairs(); ++i) {
    UCCP_RETURN_IF_ERROR(sides.fresh());
    const Plan plan{.in_flight = 128, .seconds = seconds, .warm_up_s = 0};
    const auto factor = [&](const std::vector<int>& pids, const auto& publish) {
      const uint64_t before = bytes_written(pids);
      const LoadResult result = publish();
      return static_cast<double>(bytes_written(pids) - before) / static_cast<double>(result.all_ok * kBytes);
    };
    row.add_ours(factor(sides.uccp->pids(), [&] { return sides.publish(kBytes, plan); }));
    if (sides.nats) row.add_peer(factor(sides.nats->pids(), [&] { return sides.publish_there(kBytes, plan); }));
  }
  context.emit(row);
  return Status::ok();
}

double rate_since(SteadyTime begin, uint64_t count) {
  const double seconds = std::chrono::duration<double>(SteadyTime::clock::now() - begin).count();
  return seconds > 0 ? static_cast<double>(count) / seconds : 0;
}

// Reads of what is stored, by one reader.
Status run_consume(Context& context, Sides& sides, size_t bytes) {
  const uint64_t events = context.quick ? 100'000 : 400'000;
  constexpr uint64_t kAtOnce = 500;
  Row row{.metric = fmt::format("read a stored topic, {} B, 1 node", bytes),
          .unit = "1/s",
          .goal = {Goal::Of::kRatio, Better::kHigher, 1}};
  sides.describe(row, fmt::format("{} events, from the first on", events));
  UCCP_RETURN_IF_ERROR(sides.fresh());
  Work fill;
  fill.method = kPublish;
  fill.request = [&](uint64_t) { return publish_many(sides.name, bytes, kAtOnce); };
  fill.verify = [](uint64_t, std::string_view) { return true; };
  const LoadResult filled = sides.ours->run(fill, {.in_flight = 4, .operations = events / kAtOnce});
  note_failures(row, filled, true);
  if (sides.nats) {
    const LoadResult there =
        sides.theirs->run([bytes](uint64_t) { return stamped(bytes); }, {.in_flight = 4096, .operations = events});
    note_failures(row, there, false);
  }
  const TlsIdentity& tls = sides.uccp->tls();
  for (int i = 0; i < context.pairs(); ++i) {
    uint64_t count = 0;
    SteadyTime begin = SteadyTime::clock::now();
    UCCP_RETURN_IF_ERROR(read_stream(sides.uccp->target(0), tls, kSubscribe, subscribe_request(sides.name, true),
                                     [&](std::string_view message) {
                                       const auto payload = delivered_payload(message);
                                       count += payload && payload->size() == bytes;
                                       return true;
                                     }));
    row.add_ours(rate_since(begin, count));
    row.verified += count;
    if (count != events) row.problem = fmt::format("{} of {} events were read", count, events);
    if (!sides.nats) continue;
    count = 0;
    begin = SteadyTime::clock::now();
    UCCP_RETURN_IF_ERROR(
        nats_consume(sides.nats->targets().front(), tls, sides.name, true, [&](std::string_view payload) {
          count += payload.size() == bytes;
          return count < events;
        }));
    row.add_peer(rate_since(begin, count));
  }
  context.emit(row);
  return Status::ok();
}

// From publishing to the reader, at the same rate on both sides.
Status run_latency(Context& context, Sides& sides, double rate, double seconds) {
  constexpr size_t kBytes = 100;
  Row row{.metric = fmt::format("from publisher to reader, p99 at {:.0f}/s, {} node{}", rate, sides.uccp->size(),
                                sides.uccp->size() == 1 ? "" : "s"),
          .unit = "ms",
          .better = Better::kLower,
          .goal = {Goal::Of::kRatio, Better::kHigher, 1 / 0.7}};
  sides.describe(row, "open loop, one reader, 100 B, half of the peer's rate at 128 publishers");
  const TlsIdentity& tls = sides.uccp->tls();
  const Plan plan{.in_flight = 4096, .rate = rate, .seconds = seconds, .warm_up_s = 0.5};
  for (int i = 0; i < context.pairs(); ++i) {
    UCCP_RETURN_IF_ERROR(sides.fresh());
    for (const bool ours : {true, false}) {
      if (!ours && !sides.nats) continue;
      LatencyHistogram histogram;
      std::atomic<bool> ready = false;
      std::atomic<uint64_t> seen = 0;
      std::atomic<bool> over = false;
      const SteadyTime from = SteadyTime::clock::now();
      const auto take = [&](std::string_view payload) {
        const auto stamp = stamp_of(payload);
        const uint64_t now = now_ns();
        if (stamp && seen.fetch_add(1) > static_cast<uint64_t>(rate / 2))
          histogram.record(static_cast<int64_t>(now - *stamp));
        ready = true;
        return !over.load();
      };
      Status read;
      std::thread reader([&] {
        if (ours) {
          read = read_stream(
              sides.uccp->target(0), tls, kSubscribe, subscribe_request(sides.name, false),
              [&](std::string_view message) { return take(delivered_payload(message).value_or(std::string_view())); });
        } else {
          read = nats_consume(sides.nats->targets().front(), tls, sides.name, false, take);
        }
      });
      const auto publish = [&](const Plan& p) {
        return ours ? sides.publish(kBytes, p) : sides.publish_there(kBytes, p);
      };
      // The reader is there when it gets something.
      while (!ready && SteadyTime::clock::now() - from < std::chrono::seconds(20)) {
        (void)publish({.in_flight = 1, .operations = 1});
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
      }
      seen = 0;
      const LoadResult result = publish(plan);
      over = true;
      (void)publish({.in_flight = 1, .operations = 1});
      reader.join();
      note_failures(row, result, ours);
      if (!read.is_ok()) row.problem = read.message();
      if (ours) row.add_ours(histogram.percentile_ms(0.99));
      else row.add_peer(histogram.percentile_ms(0.99));
      row.detail(ours ? "oursP50Ms" : "peerP50Ms", histogram.percentile_ms(0.5));
      row.verified += histogram.count();
    }
  }
  context.emit(row);
  return Status::ok();
}

}  // namespace

Status run_events_publish(Context& context) {
  const double seconds = context.quick ? 1.5 : 3;
  for (const size_t nodes : {size_t{1}, size_t{3}}) {
    UCCP_TRY(const auto sides, Sides::start(context, nodes));
    for (const Level& level :
         {Level{1, 100}, Level{16, 100}, Level{128, 100}, Level{1, 1024}, Level{16, 1024}, Level{128, 1024}}) {
      UCCP_RETURN_IF_ERROR(run_publish(context, *sides, level, seconds));
    }
    if (nodes > 1) continue;
    UCCP_RETURN_IF_ERROR(run_floor(context, *sides, seconds));
    UCCP_RETURN_IF_ERROR(measure_transactions(context, *sides->uccp));
  }
  return Status::ok();
}

Status run_events_latency(Context& context) {
  for (const size_t nodes : {size_t{1}, size_t{3}}) {
    UCCP_TRY(const auto sides, Sides::start(context, nodes));
    double half = 2'000;
    if (sides->nats) {
      UCCP_RETURN_IF_ERROR(sides->fresh());
      half = std::max(500.0, sides->publish_there(100, {.in_flight = 128, .seconds = 1, .warm_up_s = 0.3}).rate() / 2);
    }
    UCCP_RETURN_IF_ERROR(run_latency(context, *sides, half, context.quick ? 1.5 : 3));
  }
  return Status::ok();
}

Status run_events_read(Context& context) {
  UCCP_TRY(const auto sides, Sides::start(context, 1));
  UCCP_RETURN_IF_ERROR(run_bytes(context, *sides, context.quick ? 1.5 : 3));
  for (const size_t bytes : {size_t{100}, size_t{1024}}) UCCP_RETURN_IF_ERROR(run_consume(context, *sides, bytes));
  return Status::ok();
}

}  // namespace uccp::bench
