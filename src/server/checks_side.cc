#include "server/checks_side.h"

namespace uccp::server {
namespace {

constexpr int64_t kTellTimeoutMs = 5'000;

runtime::NetProbe::Kind kind_of(v1::HealthCheckKind kind) {
  switch (kind) {
    case v1::HEALTH_CHECK_KIND_HTTP: return runtime::NetProbe::Kind::kHttp;
    case v1::HEALTH_CHECK_KIND_HTTPS: return runtime::NetProbe::Kind::kHttps;
    case v1::HEALTH_CHECK_KIND_GRPC: return runtime::NetProbe::Kind::kGrpc;
    default: return runtime::NetProbe::Kind::kTcp;
  }
}

std::string_view name_of(v1::HealthCheckKind kind) {
  switch (kind) {
    case v1::HEALTH_CHECK_KIND_HTTP: return "HTTP";
    case v1::HEALTH_CHECK_KIND_HTTPS: return "HTTPS";
    case v1::HEALTH_CHECK_KIND_GRPC: return "gRPC";
    default: return "TCP";
  }
}

}  // namespace

ChecksSide::ChecksSide(NodeId self, Environment environment)
    : env_(environment),
      random_(env_.seed),
      loop_(env_.clock, runtime::LoopOptions{.stall_ms = 60'000}),
      checker_(discovery::HealthChecker::make(self, {env_.node, env_.node, loop_, random_, *this, env_.metrics,
                                                     [this](internal::v1::ReportChecksRequest request, auto done) {
                                                       tell(std::move(request), std::move(done));
                                                     }})),
      prober_(std::make_unique<runtime::NetProber>()) {}

void ChecksSide::start() {
  loop_.start("uccp-checks");
  checker_->start();
}

void ChecksSide::stop() {
  checker_->stop();
  prober_.reset();
  loop_.stop();
}

void ChecksSide::probe(discovery::ProbeTarget target, std::move_only_function<void(discovery::ProbeOutcome)> done) {
  if (!prober_) return done({false, "stopped"});
  const std::string what = "the " + std::string(name_of(target.kind)) + " check of " + target.host + ":" +
                           std::to_string(target.port) + " failed: ";
  prober_->probe({.kind = kind_of(target.kind),
                  .host = std::move(target.host),
                  .port = static_cast<uint16_t>(target.port),
                  .endpoint = std::move(target.endpoint),
                  .headers = std::move(target.headers),
                  .expected_codes = std::move(target.expected_codes),
                  .tls_skip_verify = target.tls_skip_verify,
                  .timeout_ms = target.timeout_ms},
                 [what, done = std::move(done)](const std::string& why) mutable {
                   done({why.empty(), why.empty() ? "" : what + why});
                 });
}

void ChecksSide::tell(internal::v1::ReportChecksRequest request,
                      std::move_only_function<void(Result<internal::v1::ReportChecksResponse>)> done) {
  env_.observations.ask_heard(request);
  auto heard = [this, asked = env_.clock.boot(),
                done = std::move(done)](Result<internal::v1::ReportChecksResponse> response) mutable {
    if (response) env_.observations.take_heard(*response, asked);
    done(std::move(response));
  };
  if (env_.links.leads(kCoreGroup)) return env_.observations.report(std::move(request), std::move(heard));
  const NodeId leader = env_.links.leader(kCoreGroup);
  if (!leader) return heard(fail(Code::kUnavailable, "NO_LEADER", "no leader is known"));
  env_.links.call(leader, "uccp.internal.v1.NodeLink/ReportChecks", request.SerializeAsString(), kTellTimeoutMs,
                  [done = std::move(heard)](Result<std::string> bytes) mutable {
                    if (!bytes) return done(std::unexpected(std::move(bytes.error())));
                    internal::v1::ReportChecksResponse response;
                    if (!response.ParseFromString(*bytes))
                      return done(fail(Code::kInternal, "WIRE_INVALID", "unreadable"));
                    done(std::move(response));
                  });
}

}  // namespace uccp::server
