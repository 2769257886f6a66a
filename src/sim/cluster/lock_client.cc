#include "sim/cluster/lock_client.h"

#include "call/contract.h"
#include "services/locks/locks_service.h"

namespace uccp::sim {
namespace {

constexpr int64_t kLocks = 2;
constexpr int64_t kHoldUsMax = 40'000;
constexpr int kRenewalsMax = 3;
constexpr int64_t kTtlMsMin = 300;
constexpr int64_t kTtlMsMax = 1300;
constexpr int64_t kDeadlineMs = 1500;

const call::Method* method(std::string_view rpc) {
  return call::Contract::get().find("uccp.v1.Coordination/" + std::string(rpc));
}

void set_ms(google::protobuf::Duration* out, int64_t ms) {
  out->set_seconds(ms / 1000);
  out->set_nanos(static_cast<int32_t>(ms % 1000) * 1'000'000);
}

}  // namespace

LockClient::LockClient(SimCluster& cluster, size_t number, uint64_t operations)
    : SimClient(cluster, "locks-" + std::to_string(number)), left_(operations) {}

void LockClient::start() {
  after_us(below(50'000), [this] { next(); });
}

void LockClient::next() {
  if (left_ == 0) return;
  lock_ = "lock-" + std::to_string(below(kLocks));
  owner_ = name() + "." + std::to_string(++holds_);
  waits_since_us_ = cluster_.healed() ? cluster_.now_us() : 0;
  acquire();
}

int64_t LockClient::longest_wait_us() const {
  const auto others = static_cast<int64_t>(cluster_.options().lock_clients + 1);
  return others * (kTtlMsMax * 2000 + kHoldUsMax * kRenewalsMax) + kDeadlineMs * 2000;
}

// It asks again, and is served in the end, within the bound.
void LockClient::passed_over() {
  if (waits_since_us_ == 0) return completed();
  cluster_.checkers().queues.waited(owner_, cluster_.now_us() - waits_since_us_, longest_wait_us());
  acquire();
}

void LockClient::acquire() {
  static const call::Method* const acquire = method("AcquireLock");
  ttl_ms_ = kTtlMsMin + below(kTtlMsMax - kTtlMsMin);
  v1::AcquireLockRequest request;
  request.set_name(lock_);
  request.set_owner(owner_);
  set_ms(request.mutable_ttl(), ttl_ms_);
  ask({.method = acquire, .request = request.SerializeAsString(), .deadline_ms = kDeadlineMs},
      [this](const Result<machine::Applied>& result, int64_t called_us) {
        if (result) {
          if (waits_since_us_ > 0) {
            cluster_.checkers().queues.waited(owner_, cluster_.now_us() - waits_since_us_, longest_wait_us());
          }
          return acquired(called_us, result->response);
        }
        // Not its turn in time, or the hold ended before the answer came: both are answers.
        const Code code = result.error().code();
        if (code == Code::kDeadline) return passed_over();
        if (code != Code::kFailedPrecondition) {
          cluster_.checkers().violations.add("locks", owner_ + ": " + result.error().to_string());
        }
        completed();
      });
}

void LockClient::acquired(int64_t called_us, const std::string& response) {
  v1::Lock lock;
  if (!lock.ParseFromString(response)) return cluster_.checkers().violations.add("locks", owner_ + ": no lock");
  lease_ = lock.lease_id();
  renewals_ = 0;
  if (cluster_.tracing()) {
    cluster_.note(owner_ + " holds " + lock_ + " by lease " + lease_ + " for " + std::to_string(ttl_ms_) +
                  " ms, asked at " + std::to_string(called_us));
  }
  HoldChecker& holds = cluster_.checkers().holds;
  holds.shown("permits", lock.fencing_token(), owner_);
  holds.holds(lock_, owner_, called_us, ttl_ms_, cluster_.now_us());
  hold();
}

void LockClient::hold() {
  after_us(below(kHoldUsMax), [this] {
    if (!cluster_.healed() && chance(0.05)) {
      // Falls silent: the lock has to come free by its ttl.
      return after_us(ttl_ms_ * 1000, [this] { completed(); });
    }
    if (renewals_ < kRenewalsMax && chance(0.5)) renew();
    else release();
  });
}

void LockClient::renew() {
  static const call::Method* const renew = method("RenewLock");
  ++renewals_;
  v1::RenewLockRequest request;
  request.set_name(lock_);
  request.set_lease_id(lease_);
  // The same ttl anew: it is a change of the state, and not only of the leader's memory.
  if (chance(0.4)) set_ms(request.mutable_ttl(), ttl_ms_);
  try_once(kCoreGroup,
           SimCluster::service({.method = renew, .request = request.SerializeAsString(), .principal = name()}),
           [this](const Result<machine::Applied>& result, int64_t called_us) {
             if (cluster_.tracing()) {
               cluster_.note(owner_ + " renewed at " + std::to_string(called_us) +
                             (result ? "" : ": " + result.error().to_string()));
             }
             if (result) {
               cluster_.checkers().holds.holds(lock_, owner_, called_us, ttl_ms_, cluster_.now_us());
               return hold();
             }
             const Code code = result.error().code();
             if (code != Code::kNotFound) return hold();
             cluster_.checkers().holds.released(lock_, owner_);
             completed();
           });
}

void LockClient::release() {
  static const call::Method* const release = method("ReleaseLock");
  cluster_.checkers().holds.released(lock_, owner_);
  v1::ReleaseLockRequest request;
  request.set_name(lock_);
  request.set_lease_id(lease_);
  ask({.method = release, .request = request.SerializeAsString(), .deadline_ms = 300},
      [this](const Result<machine::Applied>& result, int64_t) {
        if (!result && result.error().code() != Code::kNotFound && result.error().code() != Code::kDeadline) {
          cluster_.checkers().violations.add("locks", owner_ + " releasing: " + result.error().to_string());
        }
        completed();
      });
}

void LockClient::completed() {
  --left_;
  after_us(below(30'000), [this] { next(); });
}

}  // namespace uccp::sim
