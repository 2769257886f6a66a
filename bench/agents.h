// Many agents in one thread: sessions over a few connections, heartbeats, attempts that end at once or are held. For
// measuring a server with far more workers than a machine has.
//
// Each speaks the wire of agents as uccp-agent does: Hello with what it runs and what was not acknowledged, heartbeats
// at the interval of its Welcome, starts, outcomes until they are acknowledged, and another node when its stream ends.
// That many workers share a connection needs the permission agent.multiplex, which the identity given has to have.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/status.h"
#include "bench/histogram.h"
#include "bench/load.h"

namespace uccp::bench {

struct AgentsOptions {
  size_t agents = 10'000;
  int connections_per_node = 16;
  double cores = 16;
  uint64_t memory_bytes = 64ull << 30;
  bool hold = false;  // attempts run until the end of the benchmark
};

class Agents {
 public:
  static Result<std::unique_ptr<Agents>> start(const std::vector<std::string>& nodes, const TlsIdentity& tls,
                                               const AgentsOptions& options);
  ~Agents();

  // All of these may be asked for from any thread.
  size_t connected() const { return connected_; }  // have a Welcome on their present stream
  uint64_t launched() const { return launched_; }
  uint64_t finished() const { return finished_; }  // outcomes that were acknowledged as counting
  uint64_t refused() const { return refused_; }    // those that did not count
  uint64_t killed() const { return killed_; }      // attempts that a Welcome did not know
  uint64_t reconnects() const { return reconnects_; }
  int64_t last_welcome_ns() const { return last_welcome_ns_; }
  // Since this was set, the moment of the first launch; 0: none yet.
  void watch_launches() { first_launch_ns_ = -1; }
  int64_t first_launch_ns() const { return std::max<int64_t>(0, first_launch_ns_); }
  // From the time in the name of a task ("t-NANOSECONDS") to its launch. To be asked for when no task is under way.
  LatencyHistogram take_placement();

 private:
  class Fleet;
  Agents() = default;

  std::atomic<size_t> connected_{0};
  std::atomic<uint64_t> launched_{0}, finished_{0}, refused_{0}, killed_{0}, reconnects_{0};
  std::atomic<int64_t> last_welcome_ns_{0}, first_launch_ns_{0};
  std::atomic<bool> stop_{false}, take_{false};
  LatencyHistogram placement_, taken_;
  std::unique_ptr<Fleet> fleet_;
  std::thread thread_;
};

// Name of a task that carries when it was submitted.
std::string timed_name();

}  // namespace uccp::bench
