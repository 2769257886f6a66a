// Three nodes beside three nodes of etcd: durable writes, reads, tails and memory. Everything is acknowledged after a
// majority has synced it, on both sides, on the same disk.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "bench/consensus.h"
#include "bench/requests.h"

namespace uccp::bench {
namespace {

constexpr double kWarmUp = 0.3;

struct Level {
  size_t clients;
  double ratio;  // at least
};

double rate_of(const LoadResult& result) { return result.rate(); }
double p99_of(const LoadResult& result) { return result.latency.percentile_ms(0.99); }
double mean_ms_of(const LoadResult& result) { return result.rate() > 0 ? 1000 / result.rate() : 0; }

// A row, and one of the CPU time that was spent meanwhile.
struct Measured {
  Row row;
  std::vector<double> ours_us, peer_us;
  double best_peer = 0;
};

void note(Row& row, const char* prefix, const LoadResult& result) {
  const auto name = [prefix](const char* what) { return std::string(prefix) + what; };
  row.detail(name("P50Ms"), result.latency.percentile_ms(0.5));
  row.detail(name("P99Ms"), result.latency.percentile_ms(0.99));
  row.detail(name("ServerUsPerOp"), result.server_us_per_op());
  row.detail(name("ServerCores"), result.server_cores);
  row.detail(name("GeneratorCores"), result.generator_cores);
}

// Syncs of the leader for each acknowledged put, by a pass under strace that is not measured otherwise. Followers do as
// many.
std::optional<double> syncs_per_op(const Context& context, Side& side, const Work& work, Plan plan) {
  const auto leader = side.cluster->leader();
  if (!leader) return std::nullopt;
  auto counter = SyncCounter::start(context, side.cluster->pid(*leader));
  if (!counter) return std::nullopt;
  plan.seconds = 0.5;
  plan.warm_up_s = 0;
  const LoadResult result = side.run(work, plan);
  const auto syncs = static_cast<double>(counter->stop());
  return result.all_ok > 0 ? std::optional(syncs / static_cast<double>(result.all_ok)) : std::nullopt;
}

Measured measure(const Context& context, Duel& duel, Row row, const Work& mine, const Work& theirs, const Plan& plan,
                 double (*value)(const LoadResult&)) {
  Measured out{.row = std::move(row), .ours_us = {}, .peer_us = {}};
  LoadResult a, b;
  for (int i = 0; i < context.pairs(); ++i) {
    a = duel.ours.run(mine, plan);
    out.row.add_ours(value(a));
    out.ours_us.push_back(a.server_us_per_op());
    note_failures(out.row, a, true);
    if (!duel.etcd) continue;
    b = duel.theirs.run(theirs, plan);
    out.row.add_peer(value(b));
    out.peer_us.push_back(b.server_us_per_op());
    note_failures(out.row, b, false);
  }
  note(out.row, "ours", a);
  if (duel.etcd) note(out.row, "peer", b);
  out.best_peer = out.row.peer().value_or(0);
  if (out.row.durable) {
    out.row.syncs_ours = syncs_per_op(context, duel.ours, mine, plan);
    if (duel.etcd) out.row.syncs_peer = syncs_per_op(context, duel.theirs, theirs, plan);
  }
  return out;
}

Row cpu_row(const Duel& duel, const std::string& what, const Measured& measured, const std::string& settings) {
  Row row{.metric = "server CPU of all nodes, " + what,
          .unit = "us",
          .better = Better::kLower,
          .goal = {Goal::Of::kRatio, Better::kHigher, 1 / 0.7}};
  for (double us : measured.ours_us) row.add_ours(us);
  for (double us : measured.peer_us) row.add_peer(us);
  duel.describe(row, settings);
  row.verified = measured.row.verified;
  row.problem = measured.row.problem;
  return row;
}

}  // namespace

Status run_consensus_writes(Context& context) {
  UCCP_TRY(const auto duel, Duel::start(context));
  UCCP_RETURN_IF_ERROR(duel->connect(Side::Endpoints::kLeader, 8));
  const double seconds = context.quick ? 1.5 : 2.5;
  const Work mine = put_work(true), theirs = put_work(false);
  const std::string settings = "closed loop, 8 connections to the leader";
  Row one{.metric = "put, 1 client: time of a put",
          .unit = "ms",
          .better = Better::kLower,
          .goal = {Goal::Of::kRatio, Better::kHigher, 1 / 0.9}};
  one.durable = true;
  duel->describe(one, settings);
  context.emit(
      measure(context, *duel, one, mine, theirs, {.in_flight = 1, .seconds = seconds, .warm_up_s = kWarmUp}, mean_ms_of)
          .row);
  double peak = 0;
  for (const auto& [clients, ratio] : {Level{64, 1.6}, Level{256, 1.3}, Level{1000, 1.3}}) {
    Row row{.metric = fmt::format("puts, {} clients", clients),
            .unit = "1/s",
            .goal = {Goal::Of::kRatio, Better::kHigher, ratio}};
    row.durable = true;
    duel->describe(row, settings);
    const Measured measured = measure(context, *duel, row, mine, theirs,
                                      {.in_flight = clients, .seconds = seconds, .warm_up_s = kWarmUp}, rate_of);
    peak = std::max(peak, measured.best_peer);
    context.emit(measured.row);
    if (clients != 1000) context.emit(cpu_row(*duel, fmt::format("a put, {} clients", clients), measured, settings));
  }
  if (peak == 0) return Status::ok();
  Row tail{.metric = fmt::format("put p99 at {:.0f}/s, 70 % of etcd's peak", 0.7 * peak),
           .unit = "ms",
           .better = Better::kLower,
           .goal = {Goal::Of::kRatio, Better::kHigher, 1 / 0.7}};
  tail.durable = true;
  duel->describe(tail, "open loop, 8 connections to the leader");
  context.emit(measure(context, *duel, tail, mine, theirs,
                       {.in_flight = 4096, .rate = 0.7 * peak, .seconds = seconds, .warm_up_s = kWarmUp}, p99_of)
                   .row);
  return Status::ok();
}

Status run_consensus_reads(Context& context) {
  constexpr uint64_t kKeys = 10'000;
  constexpr double kRate = 10'000;
  UCCP_TRY(const auto duel, Duel::start(context));
  UCCP_RETURN_IF_ERROR(duel->connect(Side::Endpoints::kAll, 12));
  UCCP_RETURN_IF_ERROR(fill(duel->ours, kKeys));
  if (duel->etcd) UCCP_RETURN_IF_ERROR(fill(duel->theirs, kKeys));
  const double seconds = context.quick ? 1.5 : 2.5;
  struct Case {
    std::string what, level;
    size_t clients;
    double rate;
    Goal goal;
  };
  const std::array cases = {
      Case{"linearizable gets, 64 clients", "linearizable", 64, 0, {Goal::Of::kRatio, Better::kHigher, 1.5}},
      Case{"linearizable gets, 256 clients", "linearizable", 256, 0, {Goal::Of::kRatio, Better::kHigher, 1.3}},
      Case{"stale gets, 64 clients", "bounded:5000", 64, 0, {Goal::Of::kRatio, Better::kHigher, 1.25}},
      Case{"linearizable get p99 at 10,000/s", "linearizable", 4096, kRate, {Goal::Of::kOurs, Better::kLower, 10}},
  };
  for (const Case& c : cases) {
    Row row{.metric = c.what, .unit = c.rate > 0 ? "ms" : "1/s", .goal = c.goal};
    if (c.rate > 0) row.better = Better::kLower;
    duel->describe(row, std::string(c.rate > 0 ? "open" : "closed") +
                            " loop, 12 connections to all nodes, 10,000 keys, etcd restarted before each sample" +
                            (c.level == "linearizable" ? "" : "; ours at most 5 s old, etcd serializable"));
    const Work mine = get_work(true, kKeys, c.level), theirs = get_work(false, kKeys, c.level);
    const Plan plan{.in_flight = c.clients, .rate = c.rate, .seconds = seconds, .warm_up_s = kWarmUp};
    LoadResult a, b;
    for (int i = 0; i < context.pairs(); ++i) {
      a = duel->ours.run(mine, plan);
      row.add_ours(c.rate > 0 ? p99_of(a) : rate_of(a));
      note_failures(row, a, true);
      if (c.rate > 0 && a.rate() < 0.99 * c.rate) row.problem = fmt::format("only {:.0f}/s were answered", a.rate());
      if (!duel->etcd) continue;
      // It reads three times slower after writes until it is restarted.
      duel->theirs.load.reset();
      UCCP_RETURN_IF_ERROR(duel->etcd->restart());
      UCCP_RETURN_IF_ERROR(duel->theirs.connect(Side::Endpoints::kAll, 12));
      b = duel->theirs.run(theirs, plan);
      row.add_peer(c.rate > 0 ? p99_of(b) : rate_of(b));
      note_failures(row, b, false);
    }
    note(row, "ours", a);
    if (duel->etcd) note(row, "peer", b);
    context.emit(row);
  }
  return Status::ok();
}

Status run_consensus_memory(Context& context) {
  const uint64_t keys = context.quick ? 100'000 : 1'000'000;
  UCCP_TRY(const auto duel, Duel::start(context));
  UCCP_RETURN_IF_ERROR(duel->connect(Side::Endpoints::kLeader, 8));
  Row row{.metric = fmt::format("resident memory of all nodes, {} keys", keys),
          .unit = "MB",
          .better = Better::kLower,
          .goal = {Goal::Of::kRatio, Better::kHigher, 1 / 0.7}};
  duel->describe(row, "written in transactions of 64 puts");
  for (Side* side : {&duel->ours, &duel->theirs}) {
    if (side->cluster == nullptr) continue;
    const double before = side->cluster->rss_mb();
    UCCP_RETURN_IF_ERROR(fill(*side, keys));
    const double after = side->cluster->rss_mb();
    if (side->ours) row.add_ours(after);
    else row.add_peer(after);
    row.detail(side->ours ? "oursEmptyMb" : "peerEmptyMb", before);
    row.verified += keys;
  }
  context.emit(row);
  return Status::ok();
}

}  // namespace uccp::bench
