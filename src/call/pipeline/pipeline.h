// The pipeline: the stages every call passes, once, on the node that the client reached.
//
// Order: size and time limits, trace and metrics, method, authentication, rate and concurrency, decode and validate,
// authorization, quotas of calls, handler; then audit and metrics of the outcome, denials included. Each stage is a
// function of its own below; the matrix test proves for every method and door that each one runs.
//
// Callable from any thread. Must outlive every call.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/aead.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "base/random.h"
#include "call/call.h"
#include "call/handler.h"
#include "call/method.h"
#include "call/pipeline/authenticator.h"
#include "call/pipeline/live_streams.h"
#include "call/pipeline/rate_limit.h"
#include "call/pipeline/tenant_loads.h"
#include "call/policy/policy_set.h"
#include "call/request_quotas.h"

namespace uccp::call {

enum class Stage : uint8_t {
  kLimits,
  kTrace,
  kMethod,
  kAuthenticate,
  kRate,
  kDecode,
  kAuthorize,
  kQuota,
  kHandler,
  kAudit,
};
inline constexpr int kStageCount = 10;
std::string_view stage_name(Stage stage);

struct PipelineOptions {
  // Unary calls at work; streams have limits of their own. More would only wait, and be given up, inside.
  size_t calls_in_flight_max = 2'000;
  // Unary calls that wait for something (a lock, a task's end) and do no work meanwhile.
  size_t calls_waiting_max = 100'000;
  // Part of calls_in_flight_max that the calls of one tenant may be while others call too, percent.
  int calls_in_flight_tenant_percent = 80;
  // Calls a second, by whom they are counted and what they are.
  std::vector<RateRule> rates;
  // The policies in force; absent: the built-in roles alone. Callable from any thread.
  std::function<std::shared_ptr<const PolicySet>()> policies;
  // Whether what this node knows of the cluster is recent enough to go by, else the error that calls end with; absent:
  // always. Callable from any thread.
  std::function<Status()> current;
  // Quotas of calls; nullptr: there are none. Outlives the pipeline.
  RequestQuotas* quotas = nullptr;
  // For Call::hash_key; the same on all nodes.
  std::optional<SecretKey> hash_key;
  size_t credentials_cached_max = 10'000;
  size_t streams_per_principal_max = 10'000;
};

class Pipeline {
 public:
  Pipeline(const HandlerTable& handlers, Authenticator& authenticator, const Clock& clock, Random& random,
           MetricsRegistry& metrics, PipelineOptions options);
  ~Pipeline();

  // Takes a call whose door fields are set. `request` holds the request message, or is empty for client streams. The
  // call is always finished, at once or later. `method_name` is for the error if call->method is null.
  void dispatch(const CallPtr& call, std::string request, std::string_view method_name = {});

  // For a door that answers without making a Call: what a unary call of `method` is answered for want of room, the same
  // object while the answer is the same, or null if there is room. Counts the call if not. The cheaper a refusal, the
  // more is left for the calls that were taken. `load`: of the tenant that has called on the connection so far; null:
  // not known, then it is decided when it is known who calls.
  std::shared_ptr<const Status> turn_away(const Method& method, Call::Door door, const TenantLoad* load);

  // Refuses further calls with unavailable SHUTTING_DOWN.
  void close();
  size_t calls_in_flight() const { return in_flight_.load(); }
  // Unary ones at work, and those that wait.
  size_t calls_working() const { return static_cast<size_t>(std::max<int64_t>(0, working_.load())); }
  size_t calls_waiting() const { return static_cast<size_t>(std::max<int64_t>(0, waiting_.load())); }
  // For a call that another node allowed: decides again, by what is known here, if that is newer.
  Status authorize_again(Call& call, const std::string& request) const;
  // Ends the streams whose credentials or permissions are gone. To be called when who may what has changed.
  void recheck_streams();
  // Limits from now on; the rates begin with full buckets. Any thread.
  struct Limits {
    size_t calls_in_flight_max, calls_waiting_max;
    int calls_in_flight_tenant_percent;
  };
  void set_limits(const Limits& limits);
  void set_rates(std::vector<RateRule> rates);

  // For tests: called with each stage that a call enters.
  void observe_stages(std::function<void(const Call&, Stage)> observer) { observer_ = std::move(observer); }

 private:
  struct MethodMetrics;
  struct CachedPrincipal;
  class Place;

  Status run_stages(const CallPtr& call, Place* place, std::string& request, std::string_view method_name);
  Status limit(Call& call, const std::string& request);
  Status limit_work(const Call& call) const;
  Status limit_tenant(Call& call, Place* place);
  Status limit_quota(const Call& call) const;
  enum class Room : uint8_t { kYes, kFull, kTenantFull };
  Room room_for(const Method* method, const TenantLoad* load, size_t working) const;
  Status no_room(Room room, uint32_t retry) const;
  uint32_t retry_ms() const;
  void trace(const CallPtr& call);
  Status match(const Call& call, std::string_view method_name);
  Status authenticate(Call& call);
  Status check_current(const Call& call) const;
  Status limit_rate(Call& call);
  Status decode(Call& call, std::string& request);
  std::shared_ptr<const PolicySet> policies() const;
  Status authorize(Call& call, const std::string& request) const;
  static Status decide(const PolicySet& policies, const Call& call, const Principal& principal,
                       const std::string& request, WallTime wall);
  void account(Call& call, const Status& status);
  void count(const Method* method, Call::Door door, Code code, int64_t took_us);
  void note_duration(const Call& call);
  void enter(const Call& call, Stage stage) {
    if (observer_) observer_(call, stage);
  }

  const HandlerTable& handlers_;
  Authenticator& authenticator_;
  const Clock& clock_;
  Random& random_;
  std::mutex random_mutex_;
  MetricsRegistry& metrics_;
  const PipelineOptions options_;
  std::atomic<size_t> in_flight_{0};   // all
  std::atomic<int64_t> working_{0};    // unary, at work
  std::atomic<int64_t> waiting_{0};    // unary, parked
  std::atomic<int64_t> change_us_{0};  // what a change takes of late
  Gauge& waiting_gauge_;
  std::atomic<std::shared_ptr<const Status>> no_room_, tenant_no_room_;
  std::atomic<bool> closed_{false};
  std::vector<std::unique_ptr<MethodMetrics>> method_metrics_;
  std::atomic<size_t> calls_in_flight_max_;
  std::atomic<size_t> calls_waiting_max_;
  std::atomic<int> tenant_percent_;
  TenantLoads loads_;
  RateLimiter limiter_;
  LiveStreams streams_;
  std::mutex cache_mutex_;
  std::map<uint64_t, std::shared_ptr<const CachedPrincipal>> cache_;
  std::function<void(const Call&, Stage)> observer_;
};

}  // namespace uccp::call
