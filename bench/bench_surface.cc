// What the surface costs everybody: a call through all of the pipeline at both doors, one decision of the policies, an
// audit record, and encryption at rest.
#include <fmt/format.h>

#include <chrono>

#include "bench/audit_cost.h"
#include "bench/bench.h"
#include "bench/door_rows.h"
#include "bench/grpc_load.h"
#include "bench/histogram.h"
#include "bench/process.h"
#include "bench/requests.h"
#include "bench/rest_load.h"
#include "bench/variants.h"
#include "call/contract.h"
#include "call/policy/policy_set.h"
#include "uccp/v1/tasks.pb.h"

namespace uccp::bench {
namespace {

constexpr int kRules = 1'000;
constexpr int kDecisions = 100'000;
constexpr double kDecisionGoalUs = 5;
constexpr double kEncryptedGoal = 0.8;  // of the rate without encryption
constexpr DoorGoals kGrpcGoals{.rate = 20'000, .p99_ms = 20};
constexpr DoorGoals kRestGoals{.rate = 10'000, .p99_ms = 50};

// Half of the rules are bindings, in a namespace each; half are policies whose conditions look at the request.
call::PolicyInput thousand_rules() {
  call::PolicyInput in;
  in.tenants = {{.name = "acme"}};
  for (int i = 0; i < kRules / 2; ++i) {
    in.bindings.push_back({"acme",
                           fmt::format("b{}", i),
                           i % 2 == 0 ? "developer" : "viewer",
                           {fmt::format("user{}", i % 100), fmt::format("group:g{}", i)},
                           {fmt::format("team-{}", i)},
                           {}});
    in.policies.push_back({"acme", fmt::format("p{}", i),
                           fmt::format("forbid (principal in group \"g{0}\", action == \"ScheduleTask\", resource in "
                                       "namespace \"team-{0}\") when {{ request.task.resources.cpu > 100 && "
                                       "!(context.address in ip \"10.0.0.0/8\") }};",
                                       i)});
  }
  return in;
}

struct Question {
  call::Principal principal;
  std::string name_space, request;
  bool allowed = false;
};

// Users that are in two of the groups. The role of the binding decides, or the policy of the group, whose condition is
// looked at each time and holds for every third.
std::vector<Question> questions() {
  std::vector<Question> out;
  for (int i = 0; i < kRules / 2; ++i) {
    Question& one = out.emplace_back();
    one.principal.kind = call::Principal::Kind::kUser;
    one.principal.tenant = "acme";
    one.principal.name = fmt::format("user{}", i % 100);
    one.principal.groups = {fmt::format("g{}", i), fmt::format("g{}", (i + 7) % (kRules / 2))};
    one.principal.credential = call::Principal::Credential::kToken;
    one.name_space = fmt::format("team-{}", i);
    uccp::v1::ScheduleTaskRequest request;
    request.mutable_task()->add_command("true");
    request.mutable_task()->mutable_resources()->set_cpu(i % 3 == 0 ? 200 : 1);
    one.request = request.SerializeAsString();
    one.allowed = i % 2 == 0 && i % 3 != 0;
  }
  return out;
}

Status measure_policy(Context& context) {
  using Clock = std::chrono::steady_clock;
  const auto& methods = call::Contract::get().methods();
  const auto method = std::ranges::find(methods, "ScheduleTask", &call::Method::name);
  if (method == methods.end()) return Status(Code::kInternal, "BENCH_FAILED", "the contract has no ScheduleTask");
  std::vector<std::string> broken;
  const auto set = call::PolicySet::compile(thousand_rules(), &broken);
  const std::vector<Question> asked = questions();
  Row row{.metric = fmt::format("a decision among {} rules, p50", kRules),
          .unit = "us",
          .better = Better::kLower,
          .goal = {Goal::Of::kOurs, Better::kLower, kDecisionGoalUs}};
  row.settings = "in the process, one thread, 500 bindings and 500 policies of the caller's tenant";
  if (!broken.empty()) row.problem = "a policy does not compile: " + broken.front();
  LatencyHistogram all;
  for (int pair = 0; pair < context.pairs(); ++pair) {
    LatencyHistogram sample;
    for (int i = 0; i < kDecisions; ++i) {
      const Question& one = asked[static_cast<size_t>(i) % asked.size()];
      const auto start = Clock::now();
      const call::Decision decision = set->decide({.principal = one.principal,
                                                   .method = &*method,
                                                   .permission = call::PermissionTable::get().of(*method),
                                                   .name_space = one.name_space,
                                                   .request = one.request,
                                                   .address = "192.0.2.1:1"});
      const int64_t ns = std::chrono::nanoseconds(Clock::now() - start).count();
      sample.record(ns);
      all.record(ns);
      if (decision.allowed() == one.allowed) ++row.verified;
      else row.problem = "a decision was wrong for " + one.principal.name + " in " + one.name_space;
    }
    row.add_ours(sample.percentile_ms(0.5) * 1000);
  }
  row.detail("p99Us", all.percentile_ms(0.99) * 1000);
  context.emit(row);
  return Status::ok();
}

}  // namespace

Status run_surface(Context& context) {
  UCCP_RETURN_IF_ERROR(measure_policy(context));
  UCCP_RETURN_IF_ERROR(measure_audit(context));
  {
    UCCP_TRY(Side plain, Side::start(context, {}));
    UCCP_RETURN_IF_ERROR(measure_variant(context, plain,
                                         {.metric = "tasks a second, encrypted at rest",
                                          .flags = {"--encryption-key-file", write_master_key(context)},
                                          .goal = kEncryptedGoal}));
  }
  UCCP_TRY(const auto server, DevServer::start(context, {}));
  UCCP_TRY(const auto grpc, GrpcLoad::connect(server->grpc(), server->tls()));
  Work registering;
  registering.method = "uccp.v1.ServiceDiscovery/Register";
  registering.request = [](uint64_t) { return register_request(0, 0, 3600); };
  registering.verify = [](uint64_t, std::string_view reply) { return !reply.empty(); };
  if (const auto made = grpc->run(registering, {.in_flight = 1, .operations = 1}); made.ok != 1) {
    return Status(Code::kInternal, "BENCH_FAILED", "cannot register a service: " + made.first_error);
  }
  const std::string id = instance_id(0, 0);
  Work work;
  work.method = "uccp.v1.ServiceDiscovery/GetServiceMetadata";
  work.request = [request = id_request(id)](uint64_t) { return request; };
  work.verify = [id](uint64_t, std::string_view reply) { return bytes_field(reply, 1) == id; };
  measure_door(context, *grpc, work, server->pid(),
               {"GetServiceMetadata", "gRPC", "4 connections, mutual TLS 1.3", kGrpcGoals});

  UCCP_TRY(const auto rest, RestLoad::connect(server->https(), server->tls(), kDoorInFlight));
  work.request = [request = "GET /api/v1/services/" + id + " HTTP/1.1\r\nHost: " + server->https() +
                            "\r\n\r\n"](uint64_t) { return request; };
  work.verify = [wanted = "\"id\":\"" + id + "\""](uint64_t, std::string_view body) {
    return body.find(wanted) != std::string_view::npos;
  };
  measure_door(context, *rest, work, server->pid(),
               {"GetServiceMetadata", "REST", "64 keep-alive connections, mutual TLS 1.3", kRestGoals});
  return Status::ok();
}

}  // namespace uccp::bench
