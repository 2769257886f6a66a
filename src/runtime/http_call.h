// One request over HTTP or HTTPS and its answer, whatever its status: for clients of services outside.
//
// Blocks; callable from any thread, so it belongs on an executor that may wait. No redirects, TLS verified with the
// system's authorities or those of `ca_file`, a size and a time limit.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace uccp::runtime {

struct HttpCall {
  std::string method = "GET";
  std::string url;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string_view body;
  std::string ca_file;  // PEM; empty: the system's authorities
  int64_t timeout_ms = 5'000;
  size_t answer_bytes_max = 1 << 20;
};

struct HttpAnswer {
  long status = 0;
  std::string body;
};

// Errors: unavailable HTTP_CALL_FAILED, with the URL: there was no whole answer.
Result<HttpAnswer> http_call(const HttpCall& call);

}  // namespace uccp::runtime
