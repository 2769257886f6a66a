// Durable submission of tasks that only queue, beside durable puts of as many bytes into etcd on the same disk.
#include <fmt/format.h>

#include "bench/bench.h"
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
  int pid = 0;
  uint64_t next = 0;
  uint64_t acknowledged = 0;

  LoadResult run(Plan plan) {
    plan.first_index = next;
    plan.server_pids = {pid};
    LoadResult result = load->run(work, plan);
    next = result.next_index;
    acknowledged += result.all_ok;
    return result;
  }
};

// Syncs for each acknowledged operation, by a pass under strace that is not measured otherwise.
Result<double> syncs_per_op(const Context& context, Side& side, const Plan& plan) {
  UCCP_TRY(SyncCounter counter, SyncCounter::start(context, side.pid));
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

}  // namespace

Status run_submit(Context& context) {
  UCCP_TRY(const auto server, DevServer::start(context, {}));
  Side ours;
  UCCP_TRY(ours.load, GrpcLoad::connect(server->grpc(), server->tls()));
  ours.pid = server->pid();
  ours.work.method = kSchedule;
  ours.work.request = task_request;
  ours.work.verify = [](uint64_t, std::string_view reply) { return !bytes_field(reply, kTaskId).empty(); };

  const auto etcd = Etcd::start(context, server->directory() + "/pki");
  Side theirs;
  Side* peer = nullptr;
  if (etcd) {
    UCCP_TRY(theirs.load, GrpcLoad::connect((*etcd)->target(), server->tls()));
    theirs.pid = (*etcd)->pid();
    theirs.work.method = kEtcdPut;
    theirs.work.request = [](uint64_t i) { return etcd_put(fmt::format("/tasks/{:08}", i), task_request(i)); };
    theirs.work.verify = [](uint64_t, std::string_view reply) { return !bytes_field(reply, kPutHeader).empty(); };
    peer = &theirs;
  } else {
    context.say(etcd.error().message());
  }
  Row tail{.metric = "ScheduleTask p99 at 1,000/s",
           .unit = "ms",
           .better = Better::kLower,
           .goal = {Goal::Of::kOurs, Better::kLower, 20}};
  Row rate{.metric = "ScheduleTask, 64 in flight", .unit = "1/s", .goal = {Goal::Of::kOurs, Better::kHigher, kRate}};
  for (Row* row : {&tail, &rate}) {
    row->peer_name = "etcd put of the same bytes";
    row->peer_version = etcd ? (*etcd)->version() : "";
    row->peer_required = row->durable = true;
  }
  tail.settings = "open loop, one node, 4 connections, mutual TLS 1.3";
  rate.settings = "closed loop, one node, 4 connections, mutual TLS 1.3";
  measure(context, tail, ours, peer, {.in_flight = kOpenLoopInFlight, .rate = kRate, .seconds = context.seconds()},
          [](const LoadResult& result) { return result.latency.percentile_ms(0.99); });
  measure(context, rate, ours, peer, {.seconds = context.seconds()},
          [](const LoadResult& result) { return result.rate(); });
  UCCP_TRY(const uint64_t queued, count_tasks(*ours.load));
  rate.detail("tasksQueued", static_cast<double>(queued));
  if (queued != ours.acknowledged) {
    rate.problem = fmt::format("{} tasks were acknowledged and {} are queued", ours.acknowledged, queued);
  }
  rate.detail("serverRssMb", rss_mb(server->pid()));
  context.emit(tail);
  context.emit(rate);
  return Status::ok();
}

}  // namespace uccp::bench
