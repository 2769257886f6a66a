#include "call/request_quotas.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

namespace uccp::call {
namespace {

constexpr int64_t kDayUs = int64_t{86'400} * 1'000'000;
constexpr int64_t kRetryMsMax = 60'000;

// Calls that may come at once.
double burst_of(double rate) { return rate > 0 ? std::max(1.0, rate) : 0; }

Status refused(const std::string& key, const std::string& what, double wait_ms) {
  return Status(Code::kExhausted, "QUOTA_REQUESTS_EXHAUSTED", "the quota " + key + " " + what)
      .with_resource("quota", key)
      .with_retry_after_ms(
          static_cast<uint32_t>(std::clamp<double>(std::ceil(wait_ms), 1, static_cast<double>(kRetryMsMax))))
      .with_help("quotas.md#calls");
}

}  // namespace

// What the other nodes leave, and at least an equal part, so that one that has just begun gets some.
double RequestQuotas::Quota::rate() const {
  const double equal = limit.per_second / static_cast<double>(others + 1);
  return std::max(limit.per_second - others_per_second, equal);
}

void RequestQuotas::set_limits(std::vector<Limit> limits) {
  std::lock_guard lock(mutex_);
  std::map<std::string, Quotas> before = std::exchange(tenants_, {});
  std::set<std::string> limited;
  for (const Limit& limit : limits) {
    if (limit.per_second >= 0 || limit.per_day >= 0) limited.insert(limit.key.first);
  }
  for (Limit& limit : limits) {
    if (!limited.contains(limit.key.first)) continue;
    Quota& quota = tenants_[limit.key.first][limit.key.second];
    const auto tenant = before.find(limit.key.first);
    const auto old = tenant == before.end() ? Quotas::iterator() : tenant->second.find(limit.key.second);
    const bool known = tenant != before.end() && old != tenant->second.end();
    if (known) quota = old->second;
    // One that is new, or another one, begins full.
    if (!known || quota.limit.per_second != limit.per_second) {
      quota.tokens = burst_of(limit.per_second);
      quota.filled = {};
    }
    quota.limit = std::move(limit);
  }
  any_.store(!tenants_.empty());
}

std::vector<RequestQuotas::Quota*> RequestQuotas::way_of(Quotas& quotas, const Caller& caller) const {
  std::vector<Quota*> way;
  std::set<std::string> seen;
  for (const std::string& start :
       {"user:" + caller.name_space + "/" + caller.user, "namespace:" + caller.name_space, std::string("global:")}) {
    for (std::string key = start; !key.empty() && seen.insert(key).second;) {
      const auto quota = quotas.find(key);
      if (quota == quotas.end()) break;
      if (quota->second.is_limited()) way.push_back(&quota->second);
      key = quota->second.limit.parent;
    }
  }
  return way;
}

Status RequestQuotas::check(Quota& quota, const Caller& caller) {
  const Limit& limit = quota.limit;
  const uint64_t used = quota.known + quota.unseen;
  if (limit.per_day >= 0 && static_cast<double>(used) + 1 > limit.per_day) {
    const int64_t left_us = kDayUs - caller.wall.us % kDayUs;
    return refused(limit.key.second,
                   fmt::format("has used {} of {:.0f} calls of this day; the next one begins in {} s, at midnight UTC",
                               used, limit.per_day, left_us / 1'000'000),
                   static_cast<double>(left_us) / 1000);
  }
  if (limit.per_second < 0) return Status::ok();
  const double rate = quota.rate();
  const double burst = burst_of(rate);
  const double passed_s = static_cast<double>(caller.now.us - quota.filled.us) / 1e6;
  quota.tokens = quota.filled.us == 0 ? std::min(burst, quota.tokens)
                                      : std::min(burst, quota.tokens + std::max(0.0, passed_s) * rate);
  quota.filled = caller.now;
  if (quota.tokens >= 1) return Status::ok();
  const double wait_ms = rate > 0 ? (1 - quota.tokens) / rate * 1000 : static_cast<double>(kRetryMsMax);
  return refused(limit.key.second, fmt::format("allows {:g} calls a second; slow down", limit.per_second), wait_ms);
}

Status RequestQuotas::admit(const Caller& caller) {
  std::lock_guard lock(mutex_);
  const auto tenant = tenants_.find(caller.tenant);
  if (tenant == tenants_.end()) return Status::ok();
  const std::vector<Quota*> way = way_of(tenant->second, caller);
  for (Quota* quota : way) UCCP_RETURN_IF_ERROR(check(*quota, caller));
  for (Quota* quota : way) {
    if (quota->limit.per_second >= 0) quota->tokens -= 1;
    ++quota->unseen;
    ++quota->pending;
  }
  return Status::ok();
}

RequestQuotas::Quota* RequestQuotas::find(const Key& key) {
  const auto tenant = tenants_.find(key.first);
  if (tenant == tenants_.end()) return nullptr;
  const auto quota = tenant->second.find(key.second);
  return quota == tenant->second.end() ? nullptr : &quota->second;
}

std::vector<RequestQuotas::Count> RequestQuotas::take_counts() {
  std::vector<Count> counts;
  std::lock_guard lock(mutex_);
  for (auto& [tenant, quotas] : tenants_) {
    for (auto& [key, quota] : quotas) {
      if (quota.pending > 0) counts.push_back({{tenant, key}, std::exchange(quota.pending, 0)});
    }
  }
  return counts;
}

void RequestQuotas::give_back(const std::vector<Count>& counts) {
  std::lock_guard lock(mutex_);
  for (const Count& count : counts) {
    if (Quota* quota = find(count.key)) quota->pending += count.calls;
  }
}

void RequestQuotas::set_known(const std::vector<Known>& known, const std::vector<Count>& written) {
  std::lock_guard lock(mutex_);
  for (const Count& count : written) {
    if (Quota* quota = find(count.key)) quota->unseen -= std::min(quota->unseen, count.calls);
  }
  for (const Known& one : known) {
    Quota* quota = find(one.key);
    if (quota == nullptr) continue;
    quota->known = one.calls_of_day;
    quota->others_per_second = one.others_per_second;
    quota->others = one.others;
  }
}

std::vector<RequestQuotas::Key> RequestQuotas::limited() const {
  std::vector<Key> keys;
  std::lock_guard lock(mutex_);
  for (const auto& [tenant, quotas] : tenants_) {
    for (const auto& [key, quota] : quotas) {
      if (quota.is_limited()) keys.emplace_back(tenant, key);
    }
  }
  return keys;
}

}  // namespace uccp::call
