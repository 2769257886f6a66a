// Service discovery by DNS, on UDP and TCP: each question becomes a Discover call with the credentials that the door
// was given, and passes the pipeline as all others do.
//
// One thread owns the sockets; answers of the pipeline come back to it through a queue. What cannot be read is answered
// as the protocol says, or dropped. start() and stop() on the main thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/metrics.h"
#include "call/pipeline/pipeline.h"
#include "doors/dns/dns_lookup.h"

namespace uccp::doors {

inline constexpr size_t kDnsQueriesMax = 1024;     // at work at a time; beyond it SERVFAIL
inline constexpr size_t kDnsConnectionsMax = 128;  // TCP; beyond it the oldest idle one is closed
inline constexpr int64_t kDnsIdleMs = 10'000;
inline constexpr int64_t kDnsAnswerMs = 2'000;  // the client asks again after a few seconds anyhow

struct DnsDoorOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 0;  // 0: any free one, the same for UDP and TCP
  DnsZone zone;
  // Credentials of the calls. Callable from the door's thread.
  std::function<call::Credentials()> credentials;
};

class DnsDoor {
 public:
  DnsDoor();
  ~DnsDoor();

  // Answers the port. Everything must outlive stop(). Errors: unavailable LISTEN_FAILED.
  Result<uint16_t> start(DnsDoorOptions options, call::Pipeline& pipeline, const Clock& clock,
                         MetricsRegistry& metrics);
  void stop();

 private:
  class Server;
  std::shared_ptr<Server> server_;
};

}  // namespace uccp::doors
