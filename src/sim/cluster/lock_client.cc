#include "sim/cluster/lock_client.h"

#include "services/locks/locks_service.h"
#include "services/message_types.h"

namespace uccp::sim {
namespace {

using services::set_ms;

constexpr int64_t kLocks = 2;
constexpr int64_t kHoldUsMax = 40'000;
constexpr int64_t kRestUsMax = 30'000;
constexpr int kRenewalsMax = 3;
constexpr int64_t kTtlMsMin = 300;
constexpr int64_t kTtlMsMax = 1300;
constexpr int64_t kDeadlineMs = 1500;
constexpr int64_t kReleaseMs = 300;

}  // namespace

LockClient::LockClient(SimCluster& cluster, size_t number, uint64_t operations)
    : HoldClient(cluster, "locks-" + std::to_string(number), operations,
                 {.what = "locks",
                  .hold_us_max = kHoldUsMax,
                  .rest_us_max = kRestUsMax,
                  .falls_silent = 0.05,
                  .renews = 0.5,
                  .renewals_max = kRenewalsMax,
                  .over = {Code::kNotFound},
                  .may_end = {Code::kNotFound, Code::kDeadline}}) {}

void LockClient::begin() {
  begin_hold("lock-" + std::to_string(below(kLocks)), 0);
  waits_since_us_ = cluster_.healed() ? cluster_.now_us() : 0;
  acquire();
}

int64_t LockClient::longest_wait_us() const {
  const auto others = static_cast<int64_t>(cluster_.options().lock_clients + 1);
  return others * (kTtlMsMax * 2000 + kHoldUsMax * kRenewalsMax) + kDeadlineMs * 2000;
}

void LockClient::waited() {
  if (waits_since_us_ == 0) return;
  cluster_.checkers().queues.waited(owner_, cluster_.now_us() - waits_since_us_, longest_wait_us());
}

// It asks again, and is served in the end, within the bound.
void LockClient::passed_over() {
  if (waits_since_us_ == 0) return completed();
  waited();
  acquire();
}

void LockClient::acquire() {
  static const call::Method* const acquire = method("AcquireLock");
  ttl_ms_ = kTtlMsMin + below(kTtlMsMax - kTtlMsMin);
  v1::AcquireLockRequest request;
  request.set_name(thing_);
  request.set_owner(owner_);
  set_ms(request.mutable_ttl(), ttl_ms_);
  ask({.method = acquire, .request = request.SerializeAsString(), .deadline_ms = kDeadlineMs},
      [this](const Result<machine::Applied>& result, int64_t called_us) {
        if (result) {
          waited();
          return acquired(called_us, result->response);
        }
        // Not its turn in time, or the hold ended before the answer came: both are answers.
        const Code code = result.error().code();
        if (code == Code::kDeadline) return passed_over();
        if (code != Code::kFailedPrecondition) wrong(result.error().to_string());
        completed();
      });
}

void LockClient::acquired(int64_t called_us, const std::string& response) {
  v1::Lock lock;
  if (!lock.ParseFromString(response)) return wrong("no lock");
  lease_ = lock.lease_id();
  cluster_.checkers().holds.shown("permits", lock.fencing_token(), owner_);
  relies(called_us);
  hold();
}

ServiceCall LockClient::renewal() {
  static const call::Method* const renew = method("RenewLock");
  v1::RenewLockRequest request;
  request.set_name(thing_);
  request.set_lease_id(lease_);
  // The same ttl anew: it is a change of the state, and not only of the leader's memory.
  if (chance(0.4)) set_ms(request.mutable_ttl(), ttl_ms_);
  return {.method = renew, .request = request.SerializeAsString(), .principal = name()};
}

ServiceCall LockClient::release() {
  static const call::Method* const release = method("ReleaseLock");
  v1::ReleaseLockRequest request;
  request.set_name(thing_);
  request.set_lease_id(lease_);
  return {.method = release, .request = request.SerializeAsString(), .deadline_ms = kReleaseMs};
}

}  // namespace uccp::sim
