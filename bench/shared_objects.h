// Reads of an object in the memory that the processes of a machine share, by many readers at a time; and the same
// number of clients of Redis.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"
#include "bench/bench.h"

namespace uccp::bench {

struct SharedGets {
  double rate = 0;    // of all readers together
  double p99_us = 0;  // of a read, sampled
  uint64_t verified = 0;
};

// Puts one object by the agent that serves `agent_directory`, and reads it by so many threads, each of which is a
// process to the agent. Every content is compared. Errors: unavailable.
Result<SharedGets> shared_gets(const std::string& agent_directory, size_t readers, size_t bytes, double seconds);

// GETs a second of so many clients of a Redis server of this machine, without pipelining, as redis-benchmark counts
// them. Errors: not_found REDIS_MISSING; unavailable.
Result<double> redis_gets(const Context& context, size_t clients, size_t bytes, double seconds);

}  // namespace uccp::bench
