// What the choices about the log and the disk cost: durable submission of tasks with each of them, beside the defaults.
#include <array>
#include <fstream>

#include "bench/bench.h"
#include "bench/grpc_load.h"
#include "bench/process.h"
#include "bench/requests.h"

namespace uccp::bench {
namespace {

constexpr uint32_t kTaskId = 1;
constexpr char kKeyText[] = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a\n";

struct Variant {
  const char* metric;
  std::vector<std::string> flags;
  double goal;  // of the rate with the defaults
};

struct Side {
  std::unique_ptr<DevServer> server;
  std::unique_ptr<GrpcLoad> load;
  Work work;
  uint64_t next = 0;

  static Result<Side> start(const Context& context, std::vector<std::string> flags) {
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
  LoadResult run(double seconds) {
    LoadResult result = load->run(work, {.seconds = seconds, .first_index = next, .server_pids = {server->pid()}});
    next = result.next_index;
    return result;
  }
};

Status run_variant(Context& context, Side& plain, const Variant& variant) {
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

}  // namespace

Status run_stores(Context& context) {
  const std::string key_file = context.work_dir + "/master.key";
  std::ofstream(key_file) << kKeyText;
  const std::array variants = {
      Variant{"encrypted: log, state, blobs", {"--encryption-key-file", key_file}, 0.8},
      Variant{"log in RocksDB", {"--log-store", "rocksdb"}, 0.3},
      Variant{"log in LMDB", {"--log-store", "lmdb"}, 0.2},
      Variant{"group work owns its log", {"--own-log-groups", "work"}, 0.8},
  };
  UCCP_TRY(Side plain, Side::start(context, {}));
  for (const Variant& variant : variants) UCCP_RETURN_IF_ERROR(run_variant(context, plain, variant));
  return Status::ok();
}

}  // namespace uccp::bench
