#include "bench/variants.h"

#include <fstream>

#include "bench/requests.h"

namespace uccp::bench {
namespace {

constexpr uint32_t kTaskId = 1;
constexpr char kKeyText[] = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a\n";

}  // namespace

std::string write_master_key(const Context& context) {
  const std::string path = context.work_dir + "/master.key";
  std::ofstream(path) << kKeyText;
  return path;
}

Result<Side> Side::start(const Context& context, std::vector<std::string> flags) {
  Side side;
  UCCP_TRY(side.server, DevServer::start(context, {.flags = std::move(flags)}));
  UCCP_TRY(side.load, GrpcLoad::connect(side.server->grpc(), side.server->tls()));
  side.work.method = "uccp.v1.TaskScheduling/ScheduleTask";
  side.work.request = [](uint64_t i) {
    return schedule_request("bench-" + std::to_string(i), "true", "no-such-worker");
  };
  side.work.verify = [](uint64_t, std::string_view reply) { return !bytes_field(reply, kTaskId).empty(); };
  return side;
}

LoadResult Side::run(double seconds) {
  LoadResult result = load->run(work, {.seconds = seconds, .first_index = next, .server_pids = {server->pid()}});
  next = result.next_index;
  return result;
}

Status measure_variant(Context& context, Side& plain, const Variant& variant) {
  UCCP_TRY(Side other, Side::start(context, variant.flags));
  Row row{.metric = variant.metric, .unit = "1/s", .goal = {Goal::Of::kRatio, Better::kHigher, variant.goal}};
  row.peer_name = "the same with the defaults";
  row.settings = "ScheduleTask, 64 in flight, closed loop, one node, mutual TLS 1.3";
  row.peer_required = true;
  LoadResult ours, theirs;
  for (int i = 0; i < context.pairs(); ++i) {
    ours = other.run(context.seconds());
    theirs = plain.run(context.seconds());
    row.add_ours(ours.rate());
    row.add_peer(theirs.rate());
    row.verified += ours.ok + theirs.ok;
    if (ours.failed + ours.shed + ours.expired > 0) row.problem = "failed calls: " + ours.first_error;
  }
  row.detail("p99Ms", ours.latency.percentile_ms(0.99));
  row.detail("peerP99Ms", theirs.latency.percentile_ms(0.99));
  row.detail("serverUsPerOp", ours.server_us_per_op());
  row.detail("peerServerUsPerOp", theirs.server_us_per_op());
  context.emit(row);
  return Status::ok();
}

}  // namespace uccp::bench
