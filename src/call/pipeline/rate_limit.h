// Token buckets: how many calls of a kind a principal, a tenant or an address may make in a second.
//
// A call is counted against every rule that it falls under; the first that has no tokens left refuses it, and then none
// of them is charged. Callable from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "call/call.h"
#include "call/method.h"

namespace uccp::call {

enum class RateBy : uint8_t { kPrincipal, kTenant, kAddress };

struct RateRule {
  RateBy by = RateBy::kPrincipal;
  std::string quota_class;  // "write"; empty: calls of all classes but those of agents and nodes
  std::string method;       // name of the method; empty: all
  double per_second = 0;
  double burst = 0;
};

// "address:200, tenant:write:1000, ScheduleTask:50/200" into rules: WHOM, WHOM:CLASS or METHOD, then calls a second
// and, behind a slash, how many may come at once. Errors: invalid RATE_LIMIT_INVALID.
Result<std::vector<RateRule>> parse_rate_rules(std::string_view text);

class RateLimiter {
 public:
  // Full buckets are dropped beyond this number.
  static constexpr size_t kBucketsMax = 100'000;

  explicit RateLimiter(std::vector<RateRule> rules) { replace(std::move(rules)); }

  struct Caller {
    std::string_view tenant, principal;
    bool known = false;  // false: only rules by address count
    std::string_view address;
    const Method& method;
    BootTime now;
  };
  // Takes the tokens that the method costs and says in `state` what the tightest rule leaves. Errors: exhausted
  // RATE_LIMITED with the time after which the tokens are there.
  // Other rules from now on, each with full buckets.
  void replace(std::vector<RateRule> rules);
  Status take(const Caller& caller, RateState& state);

 private:
  struct Bucket {
    double tokens;
    BootTime filled;
  };
  static bool covers(const RateRule& rule, const Caller& caller);
  static std::string subject_of(const RateRule& rule, const Caller& caller);
  void drop_full_buckets(BootTime now);

  std::mutex mutex_;  // of what follows
  std::vector<RateRule> rules_;
  std::atomic<bool> any_{false};                              // without it nothing is locked
  std::map<std::pair<size_t, std::string>, Bucket> buckets_;  // by rule and whom
};

}  // namespace uccp::call
