// Clients of the etcd API that do more than one call at a time: those that take a lock in turns, and watchers. The same
// code for both sides of a comparison.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "bench/histogram.h"
#include "bench/load.h"
#include "doors/grpc_client/channel.h"

namespace uccp::bench {

using Channels = std::vector<std::unique_ptr<doors::GrpcChannel>>;
Result<Channels> connect_etcd(const std::string& target, const TlsIdentity& tls, int connections);

struct LockPlan {
  size_t clients = 64;
  bool distinct = false;  // a lock of its own for each client, instead of one for all
  double seconds = 3;
  double warm_up_s = 0.5;
  std::string prefix;  // of the names
};
struct LockResult {
  uint64_t acquired = 0;
  double seconds = 0;
  LatencyHistogram wait;  // from asking for the lock until it is held
  uint64_t overlaps = 0;  // times that two held it at once
  std::string error;
  double rate() const { return seconds > 0 ? static_cast<double>(acquired) / seconds : 0; }
};
// Each client takes its lock with the lease of its own, and releases it at once, again and again (v3lock).
LockResult run_locks(const Channels& channels, const LockPlan& plan);

// Clients that grant a lease of their own and write a key that is bound to it, again and again.
struct LeaseResult {
  double rate = 0;  // pairs a second
  std::string error;
};
LeaseResult run_leases(const Channels& channels, size_t clients, double seconds);

// Watchers of one key, spread over the connections' streams. Values begin with the time of the put, 16 hexadecimal
// digits.
class Watchers {
 public:
  // Errors: unavailable BENCH_FAILED when they are not all there in time.
  static Result<std::unique_ptr<Watchers>> start(const Channels& channels, size_t watchers, const std::string& key);
  ~Watchers();
  // Forgets what was seen so far.
  void reset();
  // Waits until `events` were seen by all together; false after `seconds`.
  bool wait(uint64_t events, double seconds);
  uint64_t seen() const;
  LatencyHistogram lag() const;
  std::string error() const;

 private:
  struct Shared;
  explicit Watchers(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}
  const std::shared_ptr<Shared> shared_;
  std::vector<std::shared_ptr<doors::AsyncStream>> streams_;
};
// The value of a put that is due now.
std::string stamped_value();

}  // namespace uccp::bench
