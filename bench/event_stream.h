// Readers of our event streams: Subscribe over gRPC.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/status.h"
#include "bench/load.h"

namespace uccp::bench {

// Opens the stream of `method` and hands out its messages until `take` returns false or it has ended. Blocks. Errors:
// unavailable BENCH_FAILED with what the server said.
Status read_stream(const std::string& target, const TlsIdentity& tls, const std::string& method,
                   const std::string& request, const std::function<bool(std::string_view message)>& take);

}  // namespace uccp::bench
