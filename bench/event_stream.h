// Readers of our event streams: Subscribe over gRPC, on nghttp2 as GrpcLoad and for the same reason.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/status.h"
#include "bench/load.h"

namespace uccp::bench {

// Opens the stream of `method` `streams` times over one connection and hands out its messages until `take` returns
// false or all streams have ended. Blocks. Errors: unavailable BENCH_FAILED with what the server said.
Status read_streams(const std::string& target, const TlsIdentity& tls, const std::string& method,
                    const std::string& request, int streams, const std::function<bool(std::string_view message)>& take);

}  // namespace uccp::bench
