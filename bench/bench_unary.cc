// What the call pipeline costs: a read through all of it against a bare gRPC server that answers as many bytes.
#include <grpcpp/grpcpp.h>

#include <filesystem>
#include <thread>

#include "bench/bench.h"
#include "bench/grpc_load.h"
#include "bench/process.h"
#include "bench/requests.h"

namespace uccp::bench {
namespace {

constexpr char kGet[] = "uccp.v1.ServiceDiscovery/GetServiceMetadata";

struct Side {
  std::unique_ptr<GrpcLoad> load;
  int pid = 0;
};

Work get_work(const std::string& id) {
  Work work;
  work.method = kGet;
  work.request = [request = id_request(id)](uint64_t) { return request; };
  work.verify = [id](uint64_t, std::string_view reply) { return bytes_field(reply, 1) == id; };
  return work;
}

}  // namespace

Status run_unary(Context& context) {
  UCCP_TRY(const auto server, DevServer::start(context, {}));
  UCCP_TRY(auto ours, GrpcLoad::connect(server->grpc(), server->tls()));
  Work registering;
  registering.method = "uccp.v1.ServiceDiscovery/Register";
  registering.request = [](uint64_t) { return register_request(0, 0, 3600); };
  size_t reply_bytes = 0;
  registering.verify = [&](uint64_t, std::string_view reply) { return (reply_bytes = reply.size()) > 0; };
  if (const auto made = ours->run(registering, {.in_flight = 1, .operations = 1}); made.ok != 1) {
    return Status(Code::kInternal, "BENCH_FAILED", "cannot register a service: " + made.first_error);
  }
  const std::string port_file = context.work_dir + "/echo.port";
  std::filesystem::remove(port_file);
  UCCP_TRY(Child echo, Child::start({std::filesystem::read_symlink("/proc/self/exe"), "echo-server",
                                     server->directory() + "/pki", std::to_string(reply_bytes), port_file},
                                    context.work_dir + "/echo.log"));
  for (int i = 0; i < 1000 && !std::filesystem::exists(port_file); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  UCCP_TRY(const std::string port, read_text(port_file));
  UCCP_TRY(auto peer, GrpcLoad::connect("127.0.0.1:" + port, server->tls()));

  const Work get = get_work(instance_id(0, 0));
  Work bare = get;
  bare.verify = [&](uint64_t, std::string_view reply) { return reply.size() == reply_bytes; };
  Row row{.metric = "gRPC GetServiceMetadata, 64 in flight",
          .unit = "1/s",
          .goal = {Goal::Of::kRatio, Better::kHigher, 0.7}};
  row.peer_name = "bare grpc++ callback server";
  row.peer_version = grpc::Version();
  row.settings = "closed loop, 4 connections, mutual TLS 1.3, " + std::to_string(reply_bytes) + " bytes answered";
  row.peer_required = true;
  LoadResult a, b;
  for (int i = 0; i < context.pairs(); ++i) {
    const Plan plan{.seconds = context.seconds()};
    Plan mine = plan, theirs = plan;
    mine.server_pids = {server->pid()};
    theirs.server_pids = {echo.pid()};
    a = ours->run(get, mine);
    b = peer->run(bare, theirs);
    row.add_ours(a.rate());
    row.add_peer(b.rate());
    row.verified += a.ok + b.ok;
    if (a.failed + a.shed + a.expired > 0) row.problem = "failed calls: " + a.first_error;
  }
  row.detail("p99Ms", a.latency.percentile_ms(0.99));
  row.detail("peerP99Ms", b.latency.percentile_ms(0.99));
  row.detail("serverUsPerOp", a.server_us_per_op());
  row.detail("peerServerUsPerOp", b.server_us_per_op());
  row.detail("generatorCores", a.generator_cores);
  row.detail("peerGeneratorCores", b.generator_cores);
  context.emit(row);
  return Status::ok();
}

}  // namespace uccp::bench
