// Coordination beside etcd, the same clients over the etcd API on both sides: locks that many want, locks that nobody
// else wants, watchers of one key; and registration with a TTL beside a lease and a key that is bound to it.
#include <fmt/format.h>

#include <algorithm>

#include "bench/consensus.h"
#include "bench/etcd_clients.h"
#include "bench/requests.h"
#include "call/wire.h"

namespace uccp::bench {
namespace {

constexpr int kConnections = 8;
constexpr char kHotKey[] = "bench/watched";

// Both sides with connections to the leader's etcd API.
struct Pair {
  std::unique_ptr<Duel> duel;
  std::string target, their_target;
  std::unique_ptr<GrpcCalls> ours, theirs;
};

Result<Pair> start_pair(Context& context, size_t nodes) {
  Pair pair;
  UCCP_TRY(pair.duel, Duel::start(context, {.nodes = nodes}));
  UCCP_TRY(const size_t leader, pair.duel->uccp->leader());
  pair.target = pair.duel->uccp->etcd_target(leader);
  UCCP_TRY(pair.ours, GrpcCalls::connect({pair.target}, pair.duel->uccp->tls(), kConnections));
  if (!pair.duel->etcd) return pair;
  UCCP_TRY(const size_t theirs, pair.duel->etcd->leader());
  pair.their_target = pair.duel->etcd->target(theirs);
  UCCP_TRY(pair.theirs, GrpcCalls::connect({pair.their_target}, pair.duel->etcd->tls(), kConnections));
  return pair;
}

void take(Row& row, const ChainResult& result, bool ours) {
  if (ours) row.add_ours(result.rate());
  else row.add_peer(result.rate());
  row.verified += result.done;
  if (result.overlaps > 0) row.problem = fmt::format("two held the lock at once, {} times", result.overlaps);
  if (!result.error.empty()) row.problem = (ours ? "" : "of the peer: ") + result.error;
}

// Rates of a lock, and the tail of waiting for it beside what the rate allows: whoever is served in turn waits for the
// number of contenders by the rate.
void measure_locks(Context& context, Pair& pair, LockPlan plan, const std::string& what, double ratio) {
  Row rate{.metric = what, .unit = "1/s", .goal = {Goal::Of::kRatio, Better::kHigher, ratio}};
  Row tail{.metric = what + ", p99 of waiting", .unit = "ms", .better = Better::kLower};
  if (!context.wants(tail.metric)) return;
  for (Row* row : {&rate, &tail}) pair.duel->describe(*row, fmt::format("etcd API, {} connections", kConnections));
  plan.seconds = context.seconds();
  ChainResult a, b;
  std::vector<double> rates;
  for (int i = 0; i < context.pairs(); ++i) {
    plan.prefix = fmt::format("bench/{}/{}", plan.distinct ? "own" : "hot", plan.clients);
    a = run_locks(*pair.ours, plan);
    take(rate, a, true);
    tail.add_ours(a.wait.percentile_ms(0.99));
    rates.push_back(a.rate());
    if (!pair.theirs) continue;
    b = run_locks(*pair.theirs, plan);
    take(rate, b, false);
    tail.add_peer(b.wait.percentile_ms(0.99));
  }
  for (const auto& [name, result] : {std::pair{"ours", &a}, {"peer", &b}}) {
    rate.detail(fmt::format("{}P50Ms", name), result->wait.percentile_ms(0.5));
    rate.detail(fmt::format("{}P99Ms", name), result->wait.percentile_ms(0.99));
  }
  context.emit(rate);
  if (plan.distinct) return;
  tail.verified = rate.verified;
  tail.problem = rate.problem;
  const double fair_ms = 1000 * static_cast<double>(plan.clients) / std::max(median(rates), 1.0);
  tail.goal = {Goal::Of::kOurs, Better::kLower, 1.4 * fair_ms};
  tail.detail("fairWaitMs", fair_ms);
  context.emit(tail);
}

struct WatchPlan {
  size_t watchers;
  double puts_per_second;
  double percentile;
  Goal goal;
};

// One sample: puts at a rate, and how long until each watcher saw them.
double sample_lag(Side& side, Watchers& watchers, const WatchPlan& plan, double seconds, Row& row) {
  watchers.reset();
  Work work;
  work.method = side.ours ? kKvPut : kEtcdPut;
  work.request = [ours = side.ours](uint64_t) {
    return ours ? kv_put(kHotKey, stamped_value()) : etcd_put(kHotKey, stamped_value());
  };
  work.verify = [](uint64_t, std::string_view reply) { return !reply.empty(); };
  const LoadResult puts =
      side.run(work, {.in_flight = 4096, .rate = plan.puts_per_second, .seconds = seconds, .warm_up_s = 0});
  note_failures(row, puts, side.ours);
  const uint64_t expected = puts.all_ok * plan.watchers;
  if (!watchers.wait(expected, 30)) {
    row.problem = fmt::format("{}{} of {} events were seen {}", side.ours ? "" : "of the peer: ", watchers.seen(),
                              expected, watchers.error());
  }
  row.verified += watchers.seen();
  return watchers.lag().percentile_ms(plan.percentile);
}

Status measure_watchers(Context& context, Pair& pair, const WatchPlan& plan) {
  Row row{.metric = fmt::format("{} watchers of one key, {:.0f} puts/s: lag p{:.0f}", plan.watchers,
                                plan.puts_per_second, plan.percentile * 100),
          .unit = "ms",
          .better = Better::kLower,
          .goal = plan.goal};
  if (!context.wants(row.metric)) return Status::ok();
  pair.duel->describe(row, fmt::format("etcd API, {} connections", kConnections));
  row.peer_required = plan.goal.of == Goal::Of::kRatio;
  UCCP_TRY(auto mine, Watchers::start(pair.target, pair.duel->uccp->tls(), kConnections, plan.watchers, kHotKey));
  std::unique_ptr<Watchers> theirs;
  if (pair.theirs) {
    UCCP_TRY(theirs, Watchers::start(pair.their_target, pair.duel->etcd->tls(), kConnections, plan.watchers, kHotKey));
  }
  UCCP_RETURN_IF_ERROR(pair.duel->connect(Side::Endpoints::kLeader, kConnections));
  for (int i = 0; i < context.pairs(); ++i) {
    row.add_ours(sample_lag(pair.duel->ours, *mine, plan, context.seconds(), row));
    if (theirs) row.add_peer(sample_lag(pair.duel->theirs, *theirs, plan, context.seconds(), row));
  }
  for (const auto& [name, watchers] : {std::pair{"ours", mine.get()}, {"peer", theirs.get()}}) {
    if (watchers == nullptr) continue;
    row.detail(fmt::format("{}P50Ms", name), watchers->lag().percentile_ms(0.5));
    row.detail(fmt::format("{}P99Ms", name), watchers->lag().percentile_ms(0.99));
  }
  context.emit(row);
  return Status::ok();
}

Status measure_registration(Context& context, Pair& pair) {
  Row row{.metric = "register an instance with a TTL, beside a lease and a put",
          .unit = "1/s",
          .goal = {Goal::Of::kRatio, Better::kHigher, 4}};
  if (!context.wants(row.metric)) return Status::ok();
  // A generator that is not at work answers no pings, so its connections do not outlive the rows before.
  UCCP_RETURN_IF_ERROR(pair.duel->connect(Side::Endpoints::kLeader, kConnections));
  pair.duel->describe(row, "closed loop, 64 in flight, 8 connections to the leader");
  Work mine;
  mine.method = "uccp.v1.ServiceDiscovery/Register";
  mine.request = [](uint64_t i) { return register_request(i / 10, i % 10, 86'400); };
  mine.verify = [](uint64_t i, std::string_view reply) { return bytes_field(reply, 1) == instance_id(i / 10, i % 10); };
  const Plan plan{.in_flight = 64, .seconds = context.seconds()};
  for (int i = 0; i < context.pairs(); ++i) {
    const LoadResult a = pair.duel->ours.run(mine, plan);
    row.add_ours(a.rate());
    note_failures(row, a, true);
    if (!pair.theirs) continue;
    const ChainResult b = run_leases(*pair.theirs, 64, context.seconds());
    row.add_peer(b.rate());
    if (!b.error.empty()) row.problem = "of the peer: " + b.error;
  }
  context.emit(row);
  return Status::ok();
}

Status measure_all(Context& context, size_t nodes) {
  UCCP_TRY(Pair pair, start_pair(context, nodes));
  measure_locks(context, pair, {.clients = 64}, "one lock, 64 contenders", 3);
  measure_locks(context, pair, {.clients = 8}, "one lock, 8 contenders", 8);
  measure_locks(context, pair, {.clients = 64, .distinct = true}, "64 clients, a lock each", 3);
  UCCP_RETURN_IF_ERROR(measure_registration(context, pair));
  UCCP_RETURN_IF_ERROR(measure_watchers(context, pair, {100, 500, 0.99, {Goal::Of::kRatio, Better::kHigher, 1 / 0.3}}));
  UCCP_RETURN_IF_ERROR(measure_watchers(context, pair, {1000, 500, 0.5, {Goal::Of::kRatio, Better::kHigher, 3}}));
  return measure_watchers(context, pair, {10'000, 20, 0.99, {Goal::Of::kOurs, Better::kLower, 500}});
}

}  // namespace

Status run_coordination(Context& context) { return measure_all(context, 3); }
Status run_coordination_one(Context& context) { return measure_all(context, 1); }

}  // namespace uccp::bench
