// What an audit record costs. The trail cannot be turned off, so this is measured where it is written: in apply.
#pragma once

#include "bench/bench.h"

namespace uccp::bench {

Status measure_audit(Context& context);

}  // namespace uccp::bench
