#include "call/pipeline/rate_limit.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "call/contract.h"

namespace uccp::call {
namespace {

// "127.0.0.1" of "127.0.0.1:50": connections of one host share their allowance.
std::string_view host_of(std::string_view address) {
  const size_t colon = address.rfind(':');
  return colon == std::string_view::npos || address.ends_with(']') ? address : address.substr(0, colon);
}

std::string_view name_of(RateBy by) {
  static constexpr std::string_view kNames[] = {"principal", "tenant", "address"};
  return kNames[static_cast<size_t>(by)];
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

// Beyond them times to wait would not fit into a number.
constexpr double kRateLeast = 1e-6;
constexpr double kRateMost = 1e9;

bool parse_number(std::string_view text, double& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size() && out >= kRateLeast && out <= kRateMost;
}

Result<RateRule> parse_rule(std::string_view text) {
  const auto wrong = [&](std::string what) {
    return fail(Code::kInvalid, "RATE_LIMIT_INVALID",
                "the rate limit '" + std::string(text) + "' " + what +
                    "; write principal:write:100, tenant:1000, address:200 or ScheduleTask:50/200");
  };
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return wrong("has no ':' before its number");
  RateRule rule;
  const std::string_view numbers = text.substr(colon + 1);
  const size_t slash = std::min(numbers.find('/'), numbers.size());
  if (!parse_number(numbers.substr(0, slash), rule.per_second))
    return wrong("has no number of calls a second, 0.000001 to 1000000000");
  rule.burst = rule.per_second;
  if (slash < numbers.size() && !parse_number(numbers.substr(slash + 1), rule.burst))
    return wrong("has no number from 0.000001 to 1000000000 behind '/'");
  std::string_view subject = text.substr(0, colon);
  const size_t inner = subject.find(':');
  const std::string_view first = subject.substr(0, inner);
  if (inner != std::string_view::npos) rule.quota_class = subject.substr(inner + 1);
  for (const RateBy by : {RateBy::kPrincipal, RateBy::kTenant, RateBy::kAddress}) {
    if (first == name_of(by)) {
      rule.by = by;
      const bool known = rule.quota_class.empty() ||
                         std::ranges::any_of(Contract::get().methods(),
                                             [&](const Method& m) { return m.quota_class == rule.quota_class; });
      return known ? Result<RateRule>(rule) : wrong("names no class of calls (read, write, stream, admin, agent)");
    }
  }
  rule.method = first;
  const bool known = inner == std::string_view::npos &&
                     std::ranges::any_of(Contract::get().methods(), [&](const Method& m) { return m.name == first; });
  if (!known) return wrong("names neither principal, tenant, address nor a method");
  return rule;
}

}  // namespace

Result<std::vector<RateRule>> parse_rate_rules(std::string_view text) {
  std::vector<RateRule> rules;
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    const std::string_view part = trimmed(text.substr(0, comma));
    text.remove_prefix(std::min(comma + 1, text.size()));
    if (part.empty()) continue;
    UCCP_TRY(RateRule rule, parse_rule(part));
    rules.push_back(std::move(rule));
  }
  return rules;
}

bool RateLimiter::covers(const RateRule& rule, const Caller& caller) {
  if (rule.by != RateBy::kAddress && !caller.known) return false;
  if (rule.by == RateBy::kAddress && caller.address.empty()) return false;
  if (!rule.method.empty()) return rule.method == caller.method.name;
  // Agents and nodes are not slowed down by what is meant for users.
  if (rule.quota_class.empty()) return caller.method.lane != Lane::kAgent;
  return rule.quota_class == caller.method.quota_class;
}

std::string RateLimiter::subject_of(const RateRule& rule, const Caller& caller) {
  switch (rule.by) {
    case RateBy::kTenant: return std::string(caller.tenant);
    case RateBy::kAddress: return std::string(host_of(caller.address));
    case RateBy::kPrincipal: break;
  }
  return std::string(caller.tenant) + "/" + std::string(caller.principal);
}

void RateLimiter::drop_full_buckets(BootTime now) {
  // A full bucket carries no information: dropping it changes nothing.
  std::erase_if(buckets_, [&](const auto& entry) {
    const RateRule& rule = rules_[entry.first.first];
    const double seconds = static_cast<double>(now.us - entry.second.filled.us) / 1e6;
    return entry.second.tokens + seconds * rule.per_second >= rule.burst;
  });
}

void RateLimiter::replace(std::vector<RateRule> rules) {
  std::lock_guard lock(mutex_);
  any_.store(!rules.empty());
  rules_ = std::move(rules);
  buckets_.clear();
}

Status RateLimiter::take(const Caller& caller, RateState& state) {
  if (!any_.load(std::memory_order_relaxed)) return Status::ok();
  const double cost = caller.method.quota_cost;
  std::vector<std::pair<const RateRule*, Bucket*>> counted;
  std::lock_guard lock(mutex_);
  if (buckets_.size() >= kBucketsMax) drop_full_buckets(caller.now);
  for (size_t i = 0; i < rules_.size(); ++i) {
    const RateRule& rule = rules_[i];
    if (!covers(rule, caller)) continue;
    const std::string subject = subject_of(rule, caller);
    Bucket& bucket = buckets_.try_emplace({i, subject}, Bucket{rule.burst, caller.now}).first->second;
    const double seconds = static_cast<double>(caller.now.us - bucket.filled.us) / 1e6;
    bucket.tokens = std::min(rule.burst, bucket.tokens + seconds * rule.per_second);
    bucket.filled = caller.now;
    // A call that costs more than all that may come at once would never be taken.
    const double due = std::min(cost, rule.burst);
    const auto reset_s = static_cast<int64_t>(std::ceil((rule.burst - bucket.tokens + due) / rule.per_second));
    if (bucket.tokens < due) {
      const double wait_ms = std::ceil((due - bucket.tokens) / rule.per_second * 1000);
      state = {std::max<int64_t>(1, static_cast<int64_t>(rule.per_second)), 0,
               static_cast<int64_t>(std::ceil(wait_ms / 1000))};
      const std::string what = !rule.method.empty() ? rule.method : rule.quota_class;
      return Status(Code::kExhausted, "RATE_LIMITED",
                    "more than " + std::to_string(static_cast<int64_t>(rule.per_second)) + (what.empty() ? "" : " ") +
                        what + " calls a second by the " + std::string(name_of(rule.by)) + " " + subject +
                        "; slow down")
          .with_retry_after_ms(static_cast<uint32_t>(std::clamp(wait_ms, 1.0, 60'000.0)));
    }
    const auto left = static_cast<int64_t>(bucket.tokens - due);
    if (state.limit == 0 || left < state.remaining) {
      state = {std::max<int64_t>(1, static_cast<int64_t>(rule.per_second)), left, reset_s};
    }
    counted.emplace_back(&rule, &bucket);
  }
  for (auto& [rule, bucket] : counted) bucket->tokens -= std::min(cost, rule->burst);
  return Status::ok();
}

}  // namespace uccp::call
