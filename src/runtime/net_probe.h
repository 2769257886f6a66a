// Looks from outside whether something answers: an HTTP or HTTPS request, a TCP connection, or gRPC's health protocol.
//
// One thread runs all probes of a NetProber at once (libcurl's multi interface). Addresses that no service can have
// (link-local, multicast, unspecified) are refused, so that whoever may register a service cannot make the server ask
// the metadata service of a cloud. Callable from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace uccp::runtime {

struct NetProbe {
  enum class Kind : uint8_t { kHttp, kHttps, kTcp, kGrpc };
  Kind kind = Kind::kTcp;
  std::string host;
  uint16_t port = 0;
  std::string endpoint;  // path and query; of gRPC the name of the service
  std::vector<std::pair<std::string, std::string>> headers;
  std::vector<int32_t> expected_codes;  // empty: 200 to 299
  bool tls_skip_verify = false;
  int64_t timeout_ms = 2000;
};

class NetProber {
 public:
  // Why it failed; empty: it passed.
  using Done = std::move_only_function<void(std::string why)>;

  NetProber();
  // Ends the probes that are under way with "stopped".
  ~NetProber();

  // `done` comes exactly once, on the prober's thread.
  void probe(NetProbe probe, Done done);

 private:
  class Worker;
  std::unique_ptr<Worker> worker_;
};

}  // namespace uccp::runtime
