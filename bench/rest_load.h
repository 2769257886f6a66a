// RestLoad: HTTP/1.1 requests over keep-alive TLS 1.3 connections, one request at a time on each, in one epoll thread.
#pragma once

#include <memory>
#include <string>

#include "base/status.h"
#include "bench/load.h"

namespace uccp::bench {

class RestLoad {
 public:
  // Opens `connections` connections to "host:port". Errors: unavailable CONNECT_FAILED.
  static Result<std::unique_ptr<RestLoad>> connect(const std::string& target, const TlsIdentity& tls, int connections);
  virtual ~RestLoad() = default;
  // Work::request gives whole HTTP requests; only answers with status 200 and Content-Length are right. The calls at
  // work are at most the connections; in an open loop a call that is due waits for a free one.
  virtual LoadResult run(const Work& work, const Plan& plan) = 0;
};

}  // namespace uccp::bench
