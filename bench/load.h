// What load is made of and what came of it; the same for gRPC and REST.
//
// Closed loop: `in_flight` calls are kept at work, each answer starts the next call. Open loop: calls start at a fixed
// rate whatever the server does, and the latency of a call counts from the moment at which it was due, so that a stall
// is seen by all calls that it delayed.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "bench/histogram.h"

namespace uccp::bench {

using SteadyTime = std::chrono::steady_clock::time_point;

inline double since(SteadyTime begin) {
  return std::chrono::duration<double>(SteadyTime::clock::now() - begin).count();
}

struct TlsIdentity {
  std::string ca_pem, certificate_pem, key_pem;
};

struct Plan {
  size_t in_flight = 64;  // closed loop: calls at work; open loop: most calls at work
  double rate = 0;        // calls a second; 0: closed loop
  double seconds = 3;     // measured, after the warm-up
  double warm_up_s = 0.3;
  uint64_t operations = 0;   // not 0: exactly so many calls, without warm-up, however long they take
  uint64_t first_index = 0;  // of the calls, as given to Work
  // Open loop: a call that the generator itself cannot start within this time is not sent; 0: it is, however late.
  int64_t late_ms_max = 0;
  const std::atomic<bool>* stop = nullptr;  // open loop: ends it early
  int64_t deadline_ms = 30'000;
  std::vector<int> server_pids;  // whose CPU time is reported, together
};

struct Work {
  std::string method;       // gRPC: "uccp.v1.ServiceDiscovery/Discover"
  std::string consistency;  // gRPC: read level, as in metadata uccp-consistency; empty: the method's own
  // The request of call `i`; for REST the whole HTTP request. Called by the pacing or by the completing thread.
  std::function<std::string(uint64_t i)> request;
  // Whether the answer of call `i` is right.
  std::function<bool(uint64_t i, std::string_view response)> verify;
};

struct LoadResult {
  uint64_t ok = 0;         // answered and right
  uint64_t shed = 0;       // refused as exhausted or unavailable
  uint64_t expired = 0;    // deadline passed
  uint64_t failed = 0;     // wrong, or any other error
  uint64_t not_found = 0;  // of `failed`
  uint64_t not_sent = 0;   // open loop: `in_flight` was reached
  uint64_t all_ok = 0;     // as `ok`, warm-up and tail included
  uint64_t next_index = 0;
  double seconds = 0;
  double generator_cores = 0;  // CPU time of this process by wall time
  double server_cores = 0;
  std::string first_error;   // of a call that failed
  std::string first_shed;    // of a call that was shed
  LatencyHistogram latency;  // of `ok`

  double rate() const { return seconds > 0 ? static_cast<double>(ok) / seconds : 0; }
  double server_us_per_op() const { return ok > 0 ? server_cores * seconds * 1e6 / static_cast<double>(ok) : 0; }
};

// CPU seconds of this process, and of processes together (those that are gone count 0).
double own_cpu_seconds();
double cpu_seconds_of(const std::vector<int>& pids);

}  // namespace uccp::bench
