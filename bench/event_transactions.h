// Events that are published in transactions, beside the same requests without them: what all or none costs.
#pragma once

#include "bench/consensus.h"

namespace uccp::bench {

// Emits the rows. Requires that nothing else runs on the cluster.
Status measure_transactions(Context& context, UccpCluster& cluster);

}  // namespace uccp::bench
