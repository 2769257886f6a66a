// Clients of the etcd API that do more than one call at a time: those that take a lock in turns, and watchers. The same
// code for both sides of a comparison.
#pragma once

#include <memory>
#include <string>

#include "base/status.h"
#include "bench/grpc_calls.h"
#include "bench/histogram.h"

namespace uccp::bench {

// What clients did that repeat a chain of calls, each in a closed loop of its own.
struct ChainResult {
  uint64_t done = 0;  // chains
  double seconds = 0;
  LatencyHistogram wait;  // from asking for the lock until it is held
  uint64_t overlaps = 0;  // times that two held it at once
  std::string error;
  double rate() const { return seconds > 0 ? static_cast<double>(done) / seconds : 0; }
};

struct LockPlan {
  size_t clients = 64;
  bool distinct = false;  // a lock of its own for each client, instead of one for all
  double seconds = 3;
  double warm_up_s = 0.5;
  std::string prefix;  // of the names
};
// Each client takes its lock with the lease of its own, and releases it at once, again and again (v3lock).
ChainResult run_locks(GrpcCalls& calls, const LockPlan& plan);

// Clients that grant a lease of their own and write a key that is bound to it, again and again.
ChainResult run_leases(GrpcCalls& calls, size_t clients, double seconds);

// Watchers of one key, spread over the connections' streams, in a thread of their own. Values begin with the time of
// the put, 16 hexadecimal digits.
class Watchers {
 public:
  // Errors: unavailable BENCH_FAILED when they are not all there in time.
  static Result<std::unique_ptr<Watchers>> start(const std::string& target, const TlsIdentity& tls, int connections,
                                                 size_t watchers, const std::string& key);
  virtual ~Watchers() = default;
  // Forgets what was seen so far.
  virtual void reset() = 0;
  // Waits until `events` were seen by all together; false after `seconds`.
  virtual bool wait(uint64_t events, double seconds) = 0;
  virtual uint64_t seen() const = 0;
  virtual LatencyHistogram lag() const = 0;
  virtual std::string error() const = 0;
};
// The value of a put that is due now.
std::string stamped_value();

}  // namespace uccp::bench
