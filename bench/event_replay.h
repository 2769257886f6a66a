// Reading a whole topic from a disk that has nothing of it in memory, beside reading the files of its log in order.
#pragma once

#include <cstdint>
#include <string>

#include "bench/bench.h"
#include "bench/cluster.h"

namespace uccp::bench {

// Adds pairs of samples in MB/s. `topic` holds `events` events of `bytes` bytes; another number is the row's problem.
Status replay(const Context& context, UccpCluster& cluster, const std::string& topic, size_t bytes, uint64_t events,
              Row& row);

}  // namespace uccp::bench
