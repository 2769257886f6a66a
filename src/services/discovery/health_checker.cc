#include "services/discovery/health_checker.h"

#include <algorithm>
#include <cstdlib>

#include "base/bytes.h"
#include "base/hash.h"
#include "base/log.h"
#include "services/discovery/discovery_rows.h"

namespace uccp::discovery {
namespace {

using internal::v1::ServiceChecks;
using internal::v1::ServiceObservation;

constexpr int64_t kIntervalDefaultMs = 10'000;
constexpr int64_t kTimeoutDefaultMs = 2'000;
constexpr int32_t kUnhealthyDefault = 3;
constexpr int64_t kFirstCheckMsMax = 1'000;
constexpr int64_t kBatchMs = 50;
constexpr int64_t kRetryMs = 500;
// Old rows may be looked at: changes that are newer come afterwards.
constexpr int64_t kLoadBoundMs = 24 * 3600 * 1000;
// Thousandths: a score that moved less is not told.
constexpr int32_t kWhole = 1000;
constexpr int32_t kScoreStep = 100;

int64_t ms_of(const google::protobuf::Duration& d, bool present, int64_t otherwise) {
  const int64_t ms = d.seconds() * 1000 + d.nanos() / 1'000'000;
  return present && ms > 0 ? ms : otherwise;
}

// Newer checks count more: about the last six of them.
int32_t next_score(int32_t score, bool passed) {
  score = (score * 7 + (passed ? 3 * kWhole : 0)) / 10;
  return passed && score > kWhole - 20 ? kWhole : score;
}

bool worth_telling(const ServiceChecks& now, const ServiceChecks& told) {
  if (now.failing() != told.failing() || now.recovering() != told.recovering()) return true;
  const int32_t moved = std::abs(now.score_milli() - told.score_milli());
  return moved >= kScoreStep || (moved > 0 && now.score_milli() == kWhole);
}

}  // namespace

struct HealthChecker::Check {
  ProbeTarget target;
  int64_t interval_ms = 0;
  int32_t healthy_threshold = 1;
  int32_t unhealthy_threshold = 1;
  int32_t passes = 0, failures = 0;  // in a row
  bool failing = false;
  int32_t score = kWhole;
  std::string reason;  // of the last failure; empty when the last one passed
  Executor::TimerId timer = 0;
};

struct HealthChecker::Instance {
  machine::Scope scope;
  std::string id;
  uint64_t hash = 0;
  bool gone = false;
  std::vector<Check> checks;
  ServiceChecks told;  // what the state says

  // All checks together: the worst counts.
  ServiceChecks summary() const {
    ServiceChecks sum;
    sum.set_score_milli(kWhole);
    bool all_recover = true;
    for (const Check& check : checks) {
      sum.set_score_milli(std::min(sum.score_milli(), check.score));
      if (!check.reason.empty() && (sum.reason().empty() || (check.failing && !sum.failing()))) {
        sum.set_reason(check.reason);
      }
      if (!check.failing) continue;
      sum.set_failing(true);
      all_recover &= check.passes > 0;
    }
    sum.set_recovering(sum.failing() && all_recover);
    if (sum.failing() && sum.reason().empty()) sum.set_reason("checks failed a short time ago");
    return sum;
  }
};

std::shared_ptr<HealthChecker> HealthChecker::make(NodeId self, HealthCheckerEnvironment environment) {
  return std::shared_ptr<HealthChecker>(new HealthChecker(self, std::move(environment)));
}

HealthChecker::HealthChecker(NodeId self, HealthCheckerEnvironment environment)
    : self_(self),
      env_(std::move(environment)),
      passed_(env_.metrics.counter("uccp_health_checks_total", "Checks of instances that this node made",
                                   {{"outcome", "passed"}})),
      failed_(env_.metrics.counter("uccp_health_checks_total", "Checks of instances that this node made",
                                   {{"outcome", "failed"}})) {}

HealthChecker::~HealthChecker() = default;

void HealthChecker::start() {
  env_.executor.post([self = shared_from_this()] {
    self->report();
    self->load();
  });
}

void HealthChecker::stop() {
  env_.executor.post([self = shared_from_this()] {
    self->stopped_ = true;
    self->watch_.reset();
    self->instances_.clear();
  });
}

// --- what there is to check -----------------------------------------------------------------------------------------

void HealthChecker::load() {
  if (stopped_) return;
  env_.reader.read(kCoreGroup, machine::ReadLevel::bounded(kLoadBoundMs),
                   [self = shared_from_this()](Result<machine::GroupView> view) mutable {
                     if (!view) {
                       self->env_.executor.post_after(kRetryMs, [self] { self->load(); });
                       return;
                     }
                     self->env_.executor.post([self, view = std::move(*view)] { self->follow(view); });
                   });
}

void HealthChecker::follow(const machine::GroupView& view) {
  if (stopped_) return;
  for (auto& [key, instance] : instances_) instance->gone = true;
  instances_.clear();
  const std::string prefix = machine::table_key::begin(kServiceTable).take();
  view.scan(prefix, machine::prefix_end(prefix), [&](std::string_view key, std::string_view row) {
    ByteReader in(key.substr(prefix.size()));
    machine::Scope scope;
    scope.tenant = in.key_part();
    scope.name_space = in.key_part();
    track(scope, row);
    return true;
  });
  watch_ = env_.watcher.watch(
      {.group = kCoreGroup, .topic = std::string(kTopic)}, view.applied(),
      [weak = weak_from_this()](const machine::Change& change) {
        const auto self = weak.lock();
        if (!self) return false;
        self->env_.executor.post([self, change] { self->changed(change); });
        return true;
      },
      [weak = weak_from_this()](const Status& status) {
        const auto self = weak.lock();
        if (!self || status.reason() == "SHUTTING_DOWN") return;
        self->env_.executor.post_after(kRetryMs, [self] { self->load(); });
      });
}

void HealthChecker::changed(const machine::Change& change) {
  if (stopped_) return;
  const auto kind = static_cast<ChangeKind>(change.kind);
  if (kind == ChangeKind::kAdded || kind == ChangeKind::kUpdated) return track(change.scope, change.payload);
  const auto gone = instances_.extract(lease_key(change.scope, change.key));
  if (!gone.empty()) gone.mapped()->gone = true;
}

void HealthChecker::track(const machine::Scope& scope, std::string_view row_bytes) {
  const ServiceRow row = parse_row(row_bytes);
  const v1::ServiceRegistration& s = row.service();
  const Key key = lease_key(scope, s.id());
  std::vector<v1::HealthCheck> specs(s.health_checks().begin(), s.health_checks().end());
  if (s.has_health_check()) specs.insert(specs.begin(), s.health_check());
  const uint64_t hash = hash_of_checks(s);
  const auto known = instances_.find(key);
  if (known != instances_.end() && known->second->hash == hash) {
    known->second->told = row.checks();
    if (!row.has_checks()) known->second->told.set_score_milli(kWhole);
    return compare(key, *known->second);
  }
  if (known != instances_.end()) {
    known->second->gone = true;
    instances_.erase(known);
  }
  if (specs.empty()) return;
  auto instance = std::make_shared<Instance>();
  instance->scope = scope;
  instance->id = s.id();
  instance->hash = hash;
  instance->told = row.checks();
  if (!row.has_checks()) instance->told.set_score_milli(kWhole);
  for (const v1::HealthCheck& spec : specs) {
    Check check;
    check.target = {.kind = spec.kind(),
                    .host = s.address(),
                    .port = spec.port() > 0 ? spec.port() : s.port(),
                    .endpoint = spec.endpoint(),
                    .headers = {spec.headers().begin(), spec.headers().end()},
                    .expected_codes = {spec.expected_codes().begin(), spec.expected_codes().end()},
                    .tls_skip_verify = spec.tls_skip_verify(),
                    .timeout_ms = ms_of(spec.timeout(), spec.has_timeout(), kTimeoutDefaultMs)};
    check.interval_ms = ms_of(spec.interval(), spec.has_interval(), kIntervalDefaultMs);
    check.healthy_threshold = std::max(1, spec.healthy_threshold());
    check.unhealthy_threshold = spec.unhealthy_threshold() > 0 ? spec.unhealthy_threshold() : kUnhealthyDefault;
    // What another node found out before goes on here.
    check.failing = row.checks().failing();
    if (row.has_checks()) check.score = row.checks().score_milli();
    check.reason = row.checks().reason();
    instance->checks.push_back(std::move(check));
  }
  instances_.emplace(key, instance);
  for (size_t at = 0; at < instance->checks.size(); ++at) {
    // Spread, so that what was registered at once is not checked at once for ever.
    const int64_t spread = std::min(instance->checks[at].interval_ms, kFirstCheckMsMax);
    schedule(key, instance, at, static_cast<int64_t>(env_.random.below(static_cast<uint64_t>(spread))));
  }
}

// --- checks ---------------------------------------------------------------------------------------------------------

bool HealthChecker::mine(const Key& key) const {
  uint64_t best = 0, owner = 0;
  for (const uint64_t node : nodes_) {
    const uint64_t weight = hash64(ByteWriter().u64(node).raw(key).take());
    if (owner == 0 || weight > best) {
      best = weight;
      owner = node;
    }
  }
  return owner == self_.value;
}

void HealthChecker::schedule(const Key& key, const std::shared_ptr<Instance>& instance, size_t at, int64_t delay_ms) {
  env_.executor.post_after(delay_ms, [weak = weak_from_this(), key, instance, at] {
    if (const auto self = weak.lock()) self->due(key, instance, at);
  });
}

void HealthChecker::due(const Key& key, const std::shared_ptr<Instance>& instance, size_t at) {
  if (stopped_ || instance->gone) return;
  Check& check = instance->checks[at];
  if (!mine(key) || probing_ >= kProbesMax) {
    check.passes = check.failures = 0;
    // Another node may find out more meanwhile: its findings are where this one would go on.
    check.failing = instance->told.failing();
    check.score = instance->told.score_milli();
    check.reason = instance->told.reason();
    // Soon again if it is not known yet who makes checks.
    return schedule(key, instance, at, nodes_.empty() ? kBatchMs : check.interval_ms);
  }
  ++probing_;
  env_.probes.probe(check.target, [self = shared_from_this(), key, instance, at](ProbeOutcome outcome) {
    self->env_.executor.post([self, key, instance, at, outcome = std::move(outcome)] {
      --self->probing_;
      self->probed(key, instance, at, outcome);
    });
  });
}

void HealthChecker::probed(const Key& key, const std::shared_ptr<Instance>& instance, size_t at,
                           const ProbeOutcome& outcome) {
  if (stopped_ || instance->gone) return;
  (outcome.passed ? passed_ : failed_).add();
  Check& check = instance->checks[at];
  check.passes = outcome.passed ? check.passes + 1 : 0;
  check.failures = outcome.passed ? 0 : check.failures + 1;
  check.score = next_score(check.score, outcome.passed);
  check.reason = outcome.passed ? "" : outcome.reason;
  if (check.failures >= check.unhealthy_threshold) check.failing = true;
  if (check.passes >= check.healthy_threshold) check.failing = false;
  compare(key, *instance);
  schedule(key, instance, at, check.interval_ms);
}

// --- reports --------------------------------------------------------------------------------------------------------

void HealthChecker::compare(const Key& key, const Instance& instance) {
  if (!mine(key)) return;
  const ServiceChecks now = instance.summary();
  if (!worth_telling(now, instance.told)) {
    found_.erase(key);
    return;
  }
  ServiceObservation& found = found_[key];
  found.set_tenant(instance.scope.tenant);
  found.set_namespace_(instance.scope.name_space);
  found.set_id(instance.id);
  found.set_checks_hash(instance.hash);
  *found.mutable_checks() = now;
  report_later(kBatchMs);
}

void HealthChecker::report_later(int64_t delay_ms) {
  if (reporting_ || stopped_) return;
  if (report_timer_ != 0) env_.executor.cancel(report_timer_);
  report_timer_ = env_.executor.post_after(delay_ms, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->report();
  });
}

void HealthChecker::report() {
  if (stopped_ || reporting_) return;
  reporting_ = true;
  report_timer_ = 0;
  internal::v1::ReportChecksRequest request;
  request.set_node(self_.value);
  while (!found_.empty() && request.findings().observations_size() < kObservationsMax) {
    *request.mutable_findings()->add_observations() = std::move(found_.extract(found_.begin()).mapped());
  }
  env_.tell(std::move(request), [self = shared_from_this()](Result<internal::v1::ReportChecksResponse> answer) {
    self->env_.executor.post([self, answer = std::move(answer)] {
      self->reporting_ = false;
      if (answer) self->nodes_.assign(answer->nodes().begin(), answer->nodes().end());
      // What was not told differs from the state still, which the next check of it finds out.
      self->report_later(!answer ? kRetryMs : self->found_.empty() ? kCheckerReportMs : kBatchMs);
    });
  });
}

}  // namespace uccp::discovery
