// How long an election group of three nodes has no leader: when the leader resigns, falls silent, or falls silent while
// the node that leads the cluster is killed.
#include <fmt/format.h>

#include <atomic>
#include <csignal>
#include <functional>
#include <thread>

#include "bench/bench.h"
#include "bench/cluster.h"
#include "bench/grpc_load.h"
#include "uccp/v1/coordination.pb.h"

namespace uccp::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kSilentTtlSeconds = 1;
constexpr int64_t kTriesMax = 200;

// A client of one node that makes one call at a time.
class Member {
 public:
  static Result<std::unique_ptr<Member>> connect(const UccpCluster& cluster, size_t node) {
    UCCP_TRY(auto load, GrpcLoad::connect(cluster.target(node), cluster.tls(), 1));
    return std::make_unique<Member>(std::move(load));
  }
  explicit Member(std::unique_ptr<GrpcLoad> load) : load_(std::move(load)) {}

  template <typename Request>
  Result<v1::Election> ask(const std::string& method, const Request& request) {
    v1::Election election;
    Work work;
    work.method = "uccp.v1.Coordination/" + method;
    work.request = [&](uint64_t) { return request.SerializeAsString(); };
    work.verify = [&](uint64_t, std::string_view reply) {
      return election.ParseFromArray(reply.data(), static_cast<int>(reply.size()));
    };
    const LoadResult result = load_->run(work, {.in_flight = 1, .operations = 1});
    if (result.ok == 1) return election;
    return fail(Code::kUnavailable, "BENCH_FAILED", method + ": " + result.first_error + result.first_shed);
  }

  Result<v1::Election> enter(const std::string& group, const std::string& id, int64_t ttl_s, int64_t wait_s) {
    v1::ElectLeaderRequest request;
    request.set_group(group);
    request.mutable_candidate()->set_id(id);
    request.mutable_ttl()->set_seconds(ttl_s);
    if (wait_s > 0) request.mutable_wait_timeout()->set_seconds(wait_s);
    return ask("ElectLeader", request);
  }

 private:
  std::unique_ptr<GrpcLoad> load_;
};

// Waits to lead after `first`, through whatever comes; answers when it was told that it does.
Result<SteadyTime> succeed(Member& next, const std::string& group) {
  Result<v1::Election> led = fail(Code::kUnavailable, "BENCH_FAILED", "never asked");
  for (int64_t i = 0; i < kTriesMax; ++i) {
    led = next.enter(group, "next", 60, 20);
    if (led && led->is_leader()) return Clock::now();
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return fail(Code::kUnavailable, "BENCH_FAILED",
              "nobody succeeded: " + (led ? "it does not lead" : led.error().message()));
}

// Milliseconds from the moment that `end` answers until the successor knows that it leads.
Result<double> interregnum(UccpCluster& cluster, const std::string& group, size_t at, size_t next_at, int64_t ttl_s,
                           const std::function<Result<SteadyTime>(Member&, const v1::Election&)>& end) {
  UCCP_TRY(const auto first, Member::connect(cluster, at));
  UCCP_TRY(const auto next, Member::connect(cluster, next_at));
  UCCP_TRY(const auto entered, Member::connect(cluster, next_at));
  UCCP_TRY(const v1::Election leads, first->enter(group, "first", ttl_s, 0));
  if (!leads.is_leader()) return fail(Code::kInternal, "BENCH_FAILED", "the first candidate does not lead");
  const SteadyTime told = Clock::now();
  // It stands in the queue before anything happens.
  UCCP_TRY(const auto queued, entered->enter(group, "next", 60, 0));
  Result<SteadyTime> known = told;
  std::jthread waits([&] { known = succeed(*next, group); });
  Result<SteadyTime> begun = end ? end(*first, leads) : told;
  waits.join();
  UCCP_RETURN_IF_ERROR(begun ? Status::ok() : std::move(begun.error()));
  if (!known) return std::unexpected(std::move(known.error()));
  return std::chrono::duration<double, std::milli>(*known - *begun).count();
}

Row row_of(const std::string& metric, const std::string& settings, double limit_ms) {
  Row row{.metric = "election, three nodes: " + metric,
          .unit = "ms",
          .better = Better::kLower,
          .goal = {Goal::Of::kOurs, Better::kLower, limit_ms}};
  row.settings = settings;
  return row;
}

Status measure(Context& context, Row row, int samples, const std::function<Result<double>(int)>& sample) {
  double worst = 0;
  for (int i = 0; i < samples; ++i) {
    UCCP_TRY(const double ms, sample(i));
    row.add_ours(ms);
    row.verified += 1;
    worst = std::max(worst, ms);
  }
  row.detail("worstMs", worst);
  context.emit(row);
  return Status::ok();
}

}  // namespace

Status run_elections(Context& context) {
  UCCP_TRY(const auto cluster, UccpCluster::start(context));
  UCCP_TRY(const size_t leader, cluster->leader());
  Cluster& nodes = *cluster;  // UccpCluster hides the start() of one node
  const size_t follower = (leader + 1) % cluster->size();
  UCCP_RETURN_IF_ERROR(
      measure(context, row_of("from resigning until the next leader knows", "both through followers", 50),
              context.quick ? 5 : 20, [&](int i) {
                return interregnum(*cluster, fmt::format("resigns-{}", i), follower, (leader + 2) % cluster->size(), 60,
                                   [&](Member& first, const v1::Election& leads) -> Result<SteadyTime> {
                                     v1::ResignLeadershipRequest request;
                                     request.set_group(leads.group());
                                     request.set_lease_id(leads.lease_id());
                                     const SteadyTime begun = Clock::now();
                                     UCCP_TRY(const auto gone, first.ask("ResignLeadership", request));
                                     return begun;
                                   });
              }));
  UCCP_RETURN_IF_ERROR(
      measure(context, row_of("from the last word of a leader with a TTL of 1 s", "its TTL is part of it", 1'500),
              context.quick ? 3 : 9, [&](int i) {
                return interregnum(*cluster, fmt::format("silent-{}", i), follower, (leader + 2) % cluster->size(),
                                   kSilentTtlSeconds, nullptr);
              }));
  return measure(context,
                 row_of("from the kill -9 of the node that leads, with a silent leader of TTL 1 s",
                        "the TTL begins anew with the next leading node", 3'500),
                 context.quick ? 2 : 5, [&](int i) -> Result<double> {
                   UCCP_TRY(const size_t leads, cluster->leader());
                   UCCP_TRY(const double ms,
                            interregnum(*cluster, fmt::format("killed-{}", i), leads, (leads + 1) % cluster->size(),
                                        kSilentTtlSeconds, [&](Member&, const v1::Election&) -> Result<SteadyTime> {
                                          const SteadyTime begun = Clock::now();
                                          cluster->kill(leads, SIGKILL);
                                          return begun;
                                        }));
                   UCCP_RETURN_IF_ERROR(nodes.start(leads));
                   return ms;
                 });
}

}  // namespace uccp::bench
