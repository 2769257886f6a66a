// Core dumps have everything in them that a process knows.
#pragma once

#include "base/status.h"

namespace uccp::runtime {

// No core dump of this process from now on, whatever the system's core_pattern is, and nobody without privileges
// attaches to it. Programs that it starts may not write core files either. Errors: unavailable CORE_DUMPS.
Status forbid_core_dumps();

}  // namespace uccp::runtime
