// Fetching a small document over HTTP or HTTPS: what key sets of outside issuers are read with.
//
// Blocks; callable from any thread, so it belongs on an executor that may wait. No redirects to other schemes, TLS
// verified with the system's authorities and `ca_pem`, a size and a time limit. Errors: unavailable HTTP_FETCH_FAILED.
#pragma once

#include <string>

#include "base/status.h"

namespace uccp::runtime {

struct HttpGetOptions {
  std::string ca_file;  // further authorities, PEM file; empty: those of the system
  int64_t timeout_ms = 5'000;
  size_t bytes_max = 1 << 20;
};

Result<std::string> http_get(const std::string& url, const HttpGetOptions& options = {});

}  // namespace uccp::runtime
