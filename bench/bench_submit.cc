// Durable submission of tasks that only queue, beside durable puts of as many bytes into etcd on the same disk: one
// node, and three.
#include <fmt/format.h>

#include <chrono>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "bench/bench.h"
#include "bench/cluster.h"
#include "bench/grpc_load.h"
#include "bench/process.h"
#include "bench/requests.h"

namespace uccp::bench {
namespace {

constexpr double kRate = 1'000;
constexpr size_t kOpenLoopInFlight = 4096;
constexpr char kSchedule[] = "uccp.v1.TaskScheduling/ScheduleTask";
constexpr uint32_t kTaskId = 1, kListTotalSize = 3, kPutHeader = 1;

std::string task_request(uint64_t i) {
  return schedule_request(fmt::format("bench-{:08}", i), "true", "no-such-worker");
}

// Both sides, and where the next call's index is.
struct Side {
  std::unique_ptr<GrpcLoad> load;
  Work work;
  std::vector<int> pids;
  uint64_t next = 0;
  uint64_t acknowledged = 0;

  static Result<Side> ours(const std::vector<std::string>& targets, const TlsIdentity& tls, std::vector<int> pids) {
    Side side{.pids = std::move(pids)};
    UCCP_TRY(side.load, GrpcLoad::connect(targets, tls));
    side.work.method = kSchedule;
    side.work.request = task_request;
    side.work.verify = [](uint64_t, std::string_view reply) { return !bytes_field(reply, kTaskId).empty(); };
    return side;
  }
  static Result<Side> etcd(const std::vector<std::string>& targets, const TlsIdentity& tls, std::vector<int> pids) {
    Side side{.pids = std::move(pids)};
    UCCP_TRY(side.load, GrpcLoad::connect(targets, tls));
    side.work.method = kEtcdPut;
    side.work.request = [](uint64_t i) { return etcd_put(fmt::format("/tasks/{:08}", i), task_request(i)); };
    side.work.verify = [](uint64_t, std::string_view reply) { return !bytes_field(reply, kPutHeader).empty(); };
    return side;
  }

  LoadResult run(Plan plan) {
    plan.first_index = next;
    plan.server_pids = pids;
    LoadResult result = load->run(work, plan);
    next = result.next_index;
    acknowledged += result.all_ok;
    return result;
  }
};

// Syncs of a node for each acknowledged operation, by a pass under strace that is not measured otherwise.
Result<double> syncs_per_op(const Context& context, Side& side, const Plan& plan) {
  UCCP_TRY(SyncCounter counter, SyncCounter::start(context, side.pids.front()));
  const LoadResult result = side.run(plan);
  const uint64_t syncs = counter.stop();
  if (result.all_ok == 0)
    return fail(Code::kUnavailable, "BENCH_FAILED", "nothing was acknowledged: " + result.first_error);
  return static_cast<double>(syncs) / static_cast<double>(result.all_ok);
}

void note_details(Row& row, const LoadResult& ours, const LoadResult& peer, bool has_peer) {
  row.detail("p50Ms", ours.latency.percentile_ms(0.5));
  row.detail("p99Ms", ours.latency.percentile_ms(0.99));
  row.detail("maxMs", ours.latency.max_ms());
  row.detail("serverUsPerOp", ours.server_us_per_op());
  row.detail("generatorCores", ours.generator_cores);
  if (!has_peer) return;
  row.detail("peerP50Ms", peer.latency.percentile_ms(0.5));
  row.detail("peerP99Ms", peer.latency.percentile_ms(0.99));
  row.detail("peerServerUsPerOp", peer.server_us_per_op());
}

void measure(const Context& context, Row& row, Side& ours, Side* peer, const Plan& plan,
             double (*value)(const LoadResult&)) {
  LoadResult a, b;
  for (int i = 0; i < context.pairs(); ++i) {
    a = ours.run(plan);
    row.add_ours(value(a));
    row.verified += a.ok;
    if (a.failed + a.shed + a.expired > 0) row.problem = "failed calls: " + a.first_error;
    if (plan.rate > 0 && a.rate() < 0.99 * plan.rate)
      row.problem = fmt::format("only {:.0f}/s were answered", a.rate());
    if (peer == nullptr) continue;
    b = peer->run(plan);
    row.add_peer(value(b));
    row.verified += b.ok;
    if (b.failed + b.shed + b.expired > 0) row.problem = "failed calls of the peer: " + b.first_error;
  }
  note_details(row, a, b, peer != nullptr);
  const auto counted = [&](Side& side, std::optional<double>& syncs) {
    Plan pass = plan;
    pass.seconds = 1;
    const auto result = syncs_per_op(context, side, pass);
    if (result) syncs = *result;
    else row.problem = result.error().message();
  };
  counted(ours, row.syncs_ours);
  if (peer != nullptr) counted(*peer, row.syncs_peer);
}

// That the queue holds exactly what was acknowledged.
Result<uint64_t> count_tasks(GrpcLoad& load) {
  Work work;
  uint64_t total = 0;
  work.method = "uccp.v1.TaskScheduling/ListTasks";
  work.request = [](uint64_t) { return std::string("\x10\x01\x38\x01", 4); };  // page_size 1, count_total
  work.verify = [&](uint64_t, std::string_view reply) {
    total = varint_field(reply, kListTotalSize);
    return true;
  };
  const LoadResult result = load.run(work, {.in_flight = 1, .operations = 1});
  if (result.ok != 1) return fail(Code::kInternal, "BENCH_FAILED", "cannot list the tasks: " + result.first_error);
  return total;
}

void note_count(Row& row, Side& ours) {
  const auto queued = count_tasks(*ours.load);
  if (!queued) {
    row.problem = queued.error().message();
    return;
  }
  row.detail("tasksQueued", static_cast<double>(*queued));
  if (*queued != ours.acknowledged)
    row.problem = fmt::format("{} tasks were acknowledged and {} are queued", ours.acknowledged, *queued);
}

Row tail_row(const std::string& where) {
  Row tail{.metric = "ScheduleTask p99 at 1,000/s" + where,
           .unit = "ms",
           .better = Better::kLower,
           .goal = {Goal::Of::kOurs, Better::kLower, 20}};
  tail.peer_name = "etcd put of the same bytes";
  tail.peer_required = tail.durable = true;
  return tail;
}

Plan tail_plan(const Context& context) {
  return {.in_flight = kOpenLoopInFlight, .rate = kRate, .seconds = context.seconds()};
}

double p99(const LoadResult& result) { return result.latency.percentile_ms(0.99); }

// Until the groups have their leaders, calls are refused.
Status wait_until_taken(Side& side) {
  constexpr int kTriesMax = 100;
  constexpr uint64_t kCalls = 30;
  LoadResult last;
  for (int i = 0; i < kTriesMax; ++i) {
    last = side.run({.in_flight = 3, .operations = kCalls});
    if (last.all_ok == kCalls) return Status::ok();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return Status(Code::kUnavailable, "BENCH_FAILED", "three nodes take no tasks: " + last.first_error + last.first_shed);
}

Status measure_cluster(Context& context) {
  UCCP_TRY(const auto cluster, UccpCluster::start(context));
  UCCP_TRY(Side ours, Side::ours(cluster->targets(), cluster->tls(), cluster->pids()));
  UCCP_RETURN_IF_ERROR(wait_until_taken(ours));
  // A call of before may have been taken without an answer.
  UCCP_TRY(ours.acknowledged, count_tasks(*ours.load));
  Row tail = tail_row(", three nodes");
  tail.settings = "open loop through all three nodes, mutual TLS 1.3";
  std::optional<Side> theirs;
  const auto etcd = EtcdCluster::start(context, *cluster);
  if (etcd) {
    tail.peer_version = (*etcd)->version();
    UCCP_TRY(theirs, Side::etcd((*etcd)->targets(), cluster->tls(), (*etcd)->pids()));
    UCCP_RETURN_IF_ERROR(wait_until_taken(*theirs));
  } else {
    context.say(etcd.error().message());
  }
  measure(context, tail, ours, theirs ? &*theirs : nullptr, tail_plan(context), p99);
  note_count(tail, ours);
  context.emit(tail);
  return Status::ok();
}

Status measure_node(Context& context) {
  UCCP_TRY(const auto server, DevServer::start(context, {}));
  UCCP_TRY(Side ours, Side::ours({server->grpc()}, server->tls(), {server->pid()}));
  std::optional<Side> theirs;
  const auto etcd = Etcd::start(context, server->directory() + "/pki");
  if (etcd) {
    UCCP_TRY(theirs, Side::etcd({(*etcd)->target()}, server->tls(), {(*etcd)->pid()}));
  } else {
    context.say(etcd.error().message());
  }
  Side* peer = theirs ? &*theirs : nullptr;
  Row tail = tail_row("");
  Row rate = tail;
  rate.metric = "ScheduleTask, 64 in flight";
  rate.unit = "1/s";
  rate.better = Better::kHigher;
  rate.goal = {Goal::Of::kOurs, Better::kHigher, kRate};
  for (Row* row : {&tail, &rate}) row->peer_version = etcd ? (*etcd)->version() : "";
  tail.settings = "open loop, one node, 4 connections, mutual TLS 1.3";
  rate.settings = "closed loop, one node, 4 connections, mutual TLS 1.3";
  measure(context, tail, ours, peer, tail_plan(context), p99);
  measure(context, rate, ours, peer, {.seconds = context.seconds()},
          [](const LoadResult& result) { return result.rate(); });
  note_count(rate, ours);
  rate.detail("serverRssMb", rss_mb(server->pid()));
  context.emit(tail);
  context.emit(rate);
  return Status::ok();
}

}  // namespace

Status run_submit(Context& context) {
  UCCP_RETURN_IF_ERROR(measure_node(context));
  return measure_cluster(context);
}

}  // namespace uccp::bench
