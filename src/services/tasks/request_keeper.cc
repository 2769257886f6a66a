#include "services/tasks/request_keeper.h"

#include <absl/time/civil_time.h>
#include <absl/time/time.h>
#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "services/feature_types.h"
#include "services/quota_use_types.h"
#include "services/tasks/attempts.h"
#include "services/tasks/task_use.h"

namespace uccp::tasks {
namespace {

constexpr int64_t kTickMs = 1'000;

using Limit = call::RequestQuotas::Limit;

Limit limit_of(const std::string& tenant, const v1::ResourceQuota& quota) {
  const auto get = [&](work::Budget budget) { return work::budget_limit(budget).get(quota.hard()); };
  return {.key = {tenant, work::quota_key(quota)},
          .parent = work::quota_parent(quota),
          .per_second = get(work::Budget::kRequestsPerSecond),
          .per_day = get(work::Budget::kRequestsPerDay)};
}

}  // namespace

std::string day_of(WallTime wall) {
  const absl::CivilDay day = absl::ToCivilDay(absl::FromUnixMicros(wall.us), absl::UTCTimeZone());
  return fmt::format("{:04}-{:02}-{:02}", day.year(), day.month(), day.day());
}

void RequestKeeper::start() { tick(); }

void RequestKeeper::stop() {
  stopped_ = true;
  watch_.reset();
  env_.loop.cancel(timer_);
}

void RequestKeeper::tick() {
  if (stopped_) return;
  timer_ = env_.loop.post_after(kTickMs, [this] { tick(); });
  if (watch_ == nullptr) follow();
  if (std::exchange(*changed_, false)) load();
  if (!quotas_.any()) return;
  write_down();
  take_up();
}

// First the position, then the state: what comes in between is read twice, never missed.
void RequestKeeper::follow() {
  const std::weak_ptr<bool> changed = changed_;
  const auto mark = [this, changed](bool ended) {
    env_.loop.post([this, changed, ended] {
      const auto flag = changed.lock();
      if (!flag) return;
      *flag = true;
      if (ended) watch_.reset();
    });
  };
  watch_ = env_.watcher.watch(
      {.group = kWorkGroup, .topic = std::string(work::kQuotaTopic)}, env_.view().applied(),
      [mark](const machine::Change&) {
        mark(false);
        return true;
      },
      [mark](const Status& status) {
        if (status.reason() != "SHUTTING_DOWN") mark(true);
      });
}

void RequestKeeper::load() {
  const machine::GroupView view = env_.view();
  std::vector<Limit> limits;
  work::kQuotas.scan_all(view, [&](const machine::Scope& scope, std::string_view, const v1::ResourceQuota& quota) {
    if (quota.scope() != v1::QUOTA_SCOPE_TEMPLATE)
      limits.push_back(limit_of(scope.tenant, with_template(view, scope.tenant, quota)));
    return true;
  });
  quotas_.set_limits(std::move(limits));
}

void RequestKeeper::write_down() {
  const BootTime now = env_.clock.boot();
  const int64_t since_ms = counted_at_.us > 0 ? std::max<int64_t>(1, now.ms_since(counted_at_)) : kTickMs;
  counted_at_ = now;
  if (env_.feature_level() < services::kSchedulingLevel) return;
  std::map<std::string, internal::v1::CountRequestsCommand> commands;
  std::map<std::string, Counts> counted;
  for (call::RequestQuotas::Count& count : quotas_.take_counts()) {
    internal::v1::CountRequestsCommand& command = commands[count.key.first];
    command.set_node(env_.node);
    internal::v1::CountedRequests& item = *command.add_counts();
    item.set_day(day_of(env_.clock.wall()));
    item.set_quota(count.key.second);
    item.set_calls(count.calls);
    item.set_rate_milli(count.calls * 1'000'000 / static_cast<uint64_t>(since_ms));
    counted[count.key.first].push_back(std::move(count));
  }
  for (auto& [tenant, command] : commands) {
    machine::Envelope envelope = system_command("quotas.count_requests", command.SerializeAsString());
    envelope.scope = work::quota_scope(tenant);
    const uint64_t flight = next_flight_++;
    flights_[flight] = {std::move(counted[tenant]), {}};
    const std::weak_ptr<bool> alive = changed_;
    env_.proposer.propose(
        kWorkGroup, std::move(envelope), [this, alive, flight](const Result<machine::Applied>& applied) {
          // An answer of another node comes on a thread of its own.
          const bool done = applied.has_value(), lost = !done && applied.error().code() == Code::kOutcomeUnknown;
          const LogIndex index = done ? applied->index : LogIndex();
          env_.loop.post([this, alive, flight, done, lost, index] {
            if (alive.expired()) return;
            auto node = flights_.extract(flight);
            if (node.empty()) return;
            if (done) node.mapped().applied = index;
            // What may have been written down is not written twice: it counts for nothing rather than double.
            if (done) flights_.insert(std::move(node));
            else if (lost) quotas_.set_known({}, node.mapped().counts);
            else quotas_.give_back(node.mapped().counts);
          });
        });
  }
}

void RequestKeeper::take_up() {
  const machine::GroupView view = env_.view();
  const std::string day = day_of(env_.clock.wall());
  Counts written;
  for (auto it = flights_.begin(); it != flights_.end();) {
    if (it->second.applied.value == 0 || it->second.applied > view.applied()) {
      ++it;
      continue;
    }
    std::ranges::move(it->second.counts, std::back_inserter(written));
    it = flights_.erase(it);
  }
  std::vector<call::RequestQuotas::Known> known;
  for (call::RequestQuotas::Key& key : quotas_.limited()) {
    const auto use = work::kRequestUse.get(view, work::quota_scope(key.first), work::request_use_key(day, key.second));
    call::RequestQuotas::Known& one = known.emplace_back();
    one.key = std::move(key);
    if (!use) continue;
    one.calls_of_day = use->calls();
    for (const internal::v1::NodeRequests& node : use->nodes()) {
      const bool recent = view.machine_time_ms() - node.at_ms() <= work::kRequestRateMs;
      if (node.node() == env_.node || node.rate_milli() == 0 || !recent) continue;
      one.others_per_second += static_cast<double>(node.rate_milli()) / 1000;
      ++one.others;
    }
  }
  quotas_.set_known(known, written);
}

}  // namespace uccp::tasks
