// The event bus where there is much of something: a thousand consumers of one topic, a hundred thousand topics, and a
// replay that the disk bounds.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <thread>

#include "bench/consensus.h"
#include "bench/event_replay.h"
#include "bench/event_requests.h"
#include "bench/event_stream.h"
#include "bench/files.h"
#include "bench/grpc_calls.h"
#include "bench/requests.h"

namespace uccp::bench {
namespace {

constexpr int kConnections = 8;

Status run_work(GrpcLoad& load, const char* method, size_t in_flight, uint64_t operations,
                const std::function<std::string(uint64_t)>& request, LoadResult& out) {
  Work work;
  work.method = method;
  work.request = request;
  work.verify = [](uint64_t, std::string_view reply) { return !reply.empty(); };
  out = load.run(work, {.in_flight = in_flight, .operations = operations});
  if (out.ok == operations) return Status::ok();
  return Status(Code::kUnavailable, "BENCH_FAILED",
                fmt::format("{} of {} calls of {} went well: {}", out.ok, operations, method,
                            out.first_error.empty() ? out.first_shed : out.first_error));
}

struct Consumer final : public GrpcCaller {
  void on_message(GrpcCall&, std::string_view message) override {
    const auto payload = delivered_payload(message);
    if (!payload) return;
    ++seen;
    if (const auto stamp = stamp_of(*payload); stamp && histogram != nullptr) {
      histogram->record(static_cast<int64_t>(now_ns() - *stamp));
    }
  }
  void on_ended(GrpcCall& call, SteadyTime) override { ended = call.message; }

  uint64_t seen = 0;
  LatencyHistogram* histogram = nullptr;
  std::string ended;
};

// All consumers have seen `count` events; publishing goes on in a thread of its own meanwhile.
Status await_all(GrpcCalls& calls, const std::vector<Consumer>& consumers, uint64_t count, double limit_s) {
  const SteadyTime begin = SteadyTime::clock::now();
  while (std::ranges::any_of(consumers, [&](const Consumer& one) { return one.seen < count; })) {
    calls.turn(SteadyTime::clock::now() + std::chrono::milliseconds(5));
    for (const Consumer& one : consumers) {
      if (!one.ended.empty()) return Status(Code::kUnavailable, "BENCH_FAILED", "a consumer ended: " + one.ended);
    }
    if (since(begin) > limit_s)
      return Status(Code::kUnavailable, "BENCH_FAILED", "not all events reached all consumers");
  }
  return Status::ok();
}

Status run_consumers(Context& context, UccpCluster& cluster) {
  constexpr size_t kConsumers = 1'000;
  constexpr size_t kBytes = 100;
  const uint64_t events = context.quick ? 300 : 1'000;
  Row rate{.metric = "deliveries to 1,000 consumers of one topic, 100 B, 1 node", .unit = "1/s"};
  Row late{.metric = "from publisher to each of 1,000 consumers, p99 at 50 events/s",
           .unit = "ms",
           .better = Better::kLower};
  if (!context.wants(rate.metric) && !context.wants(late.metric)) return Status::ok();
  rate.settings = late.settings = fmt::format("{} events, streams over {} connections", events, kConnections);
  UCCP_TRY(const auto load, GrpcLoad::connect(cluster.targets(), cluster.tls(), 1));
  UCCP_TRY(const auto calls, GrpcCalls::connect(cluster.targets(), cluster.tls(), kConnections));
  LoadResult result;
  UCCP_RETURN_IF_ERROR(run_work(*load, kCreateTopic, 1, 1, [](uint64_t) { return create_request("fan"); }, result));
  std::vector<Consumer> consumers(kConsumers);
  const CallHeaders headers(kSubscribe);
  for (size_t i = 0; i < kConsumers; ++i) calls->listen(i, headers, subscribe_request("fan", false), consumers[i]);
  const auto publish = [&](const Plan& plan) {
    Work work;
    work.method = kPublish;
    work.request = [](uint64_t) { return publish_request("fan", stamped(kBytes)); };
    work.verify = [](uint64_t, std::string_view reply) { return !reply.empty(); };
    result = load->run(work, plan);
  };
  // A consumer is there when it gets something.
  const SteadyTime begun = SteadyTime::clock::now();
  while (std::ranges::any_of(consumers, [](const Consumer& one) { return one.seen == 0; }) && since(begun) < 30) {
    publish({.in_flight = 1, .operations = 1});
    for (int i = 0; i < 20; ++i) calls->turn(SteadyTime::clock::now() + std::chrono::milliseconds(5));
  }
  const auto measure = [&](const Plan& plan) -> Result<double> {
    for (Consumer& one : consumers) one.seen = 0;
    const SteadyTime begin = SteadyTime::clock::now();
    std::thread publisher([&] { publish(plan); });
    const Status all = await_all(*calls, consumers, plan.operations, 120);
    const double seconds = since(begin);
    publisher.join();
    UCCP_RETURN_IF_ERROR(all);
    rate.verified += plan.operations * kConsumers;
    return seconds;
  };
  for (int i = 0; i < context.pairs(); ++i) {
    UCCP_TRY(const double seconds, measure({.in_flight = 4, .operations = events}));
    rate.add_ours(static_cast<double>(events * kConsumers) / seconds);
    LatencyHistogram histogram;
    for (Consumer& one : consumers) one.histogram = &histogram;
    UCCP_TRY(const double slow, measure({.in_flight = 64, .rate = 50, .operations = 100}));
    (void)slow;
    for (Consumer& one : consumers) one.histogram = nullptr;
    late.add_ours(histogram.percentile_ms(0.99));
    late.verified += histogram.count();
  }
  rate.detail("rssMb", cluster.rss_mb());
  context.emit(rate);
  context.emit(late);
  return Status::ok();
}

std::string topic_of(uint64_t number) { return fmt::format("many.{}.{}", number / 1000, number % 1000); }

Status run_topics(Context& context) {
  const uint64_t topics = context.quick ? 20'000 : 100'000;
  const auto named = [&](const char* what) { return fmt::format("{} {} topics, 1 node", what, topics); };
  Row made{.metric = named("making"), .unit = "1/s"};
  Row published{.metric = named("an event to each of"), .unit = "1/s"};
  Row read{.metric = named("reading 1,000 by a wildcard among"), .unit = "1/s"};
  Row memory{.metric = named("memory of the server with"), .unit = "MB", .better = Better::kLower};
  const std::array<const Row*, 4> rows{&made, &published, &read, &memory};
  if (std::ranges::none_of(rows, [&](const Row* row) { return context.wants(row->metric); })) return Status::ok();
  UCCP_TRY(const auto cluster, UccpCluster::start(context, {.nodes = 1}));
  UCCP_TRY(const auto load, GrpcLoad::connect(cluster->targets(), cluster->tls(), kConnections));
  LoadResult result;
  UCCP_RETURN_IF_ERROR(
      run_work(*load, kCreateTopic, 64, topics, [](uint64_t i) { return create_request(topic_of(i)); }, result));
  made.add_ours(result.rate());
  for (int i = 0; i < context.pairs(); ++i) {
    UCCP_RETURN_IF_ERROR(run_work(
        *load, kPublish, 128, topics, [](uint64_t n) { return publish_request(topic_of(n), stamped(100)); }, result));
    published.add_ours(result.rate());
  }
  for (int i = 0; i < context.pairs(); ++i) {
    uint64_t seen = 0;
    const SteadyTime begin = SteadyTime::clock::now();
    UCCP_RETURN_IF_ERROR(read_stream(cluster->target(0), cluster->tls(), kSubscribe,
                                     subscribe_request(fmt::format("many.{}.*", i), true),
                                     [&](std::string_view message) {
                                       seen += delivered_payload(message).has_value();
                                       return true;
                                     }));
    read.add_ours(static_cast<double>(seen) / since(begin));
    read.verified += seen;
    const uint64_t expected = 1000 * static_cast<uint64_t>(context.pairs());
    if (seen != expected) read.problem = fmt::format("{} of {} events were read", seen, expected);
  }
  memory.add_ours(cluster->rss_mb());
  for (const Row* row : rows) context.emit(*row);
  return Status::ok();
}

// A topic that is most of its log, from a disk that has nothing of it in memory, beside reading the files of the log.
Status run_replay(Context& context) {
  constexpr size_t kBytes = 1024;
  constexpr uint64_t kAtOnce = 500;
  const uint64_t events = context.quick ? 300'000 : 1'000'000;
  Row row{
      .metric = "replay of a topic, 1 KB, 1 node", .unit = "MB/s", .goal = {Goal::Of::kRatio, Better::kHigher, 0.5}};
  if (!context.wants(row.metric)) return Status::ok();
  row.peer_name = "the same files, read in order";
  row.settings = fmt::format("{} events, nothing of the files in the page cache", events);
  UCCP_TRY(const auto cluster, UccpCluster::start(context, {.nodes = 1}));
  UCCP_TRY(const auto load, GrpcLoad::connect(cluster->targets(), cluster->tls(), kConnections));
  LoadResult result;
  UCCP_RETURN_IF_ERROR(run_work(*load, kCreateTopic, 1, 1, [](uint64_t) { return create_request("replay"); }, result));
  UCCP_RETURN_IF_ERROR(run_work(
      *load, kPublish, 4, events / kAtOnce, [](uint64_t) { return publish_many("replay", kBytes, kAtOnce); }, result));
  UCCP_RETURN_IF_ERROR(replay(context, *cluster, "replay", kBytes, events, row));
  context.emit(row);
  return Status::ok();
}

}  // namespace

Status run_events_scale(Context& context) {
  {
    UCCP_TRY(const auto cluster, UccpCluster::start(context, {.nodes = 1}));
    UCCP_RETURN_IF_ERROR(run_consumers(context, *cluster));
  }
  UCCP_RETURN_IF_ERROR(run_replay(context));
  return run_topics(context);
}

}  // namespace uccp::bench
