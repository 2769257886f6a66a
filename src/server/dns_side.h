// DNS of this node, put together: the door, its zone, and as whom it asks.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "doors/dns/dns_door.h"
#include "runtime/jwt.h"
#include "server/config.h"

namespace uccp::server {

class DnsSide {
 public:
  // Errors: unavailable LISTEN_FAILED, invalid CONFIG_INVALID, corruption PEM_INVALID. Everything must outlive stop().
  static Result<std::unique_ptr<DnsSide>> open(uint16_t port, const Config& config, const std::string& token_key_pem,
                                               call::Pipeline& pipeline, const Clock& clock, MetricsRegistry& metrics);
  const std::string& endpoint() const { return endpoint_; }
  void stop() { door_.stop(); }

 private:
  DnsSide(const Clock& clock, runtime::TokenSigner signer, std::string token);
  call::Credentials credentials();

  const Clock& clock_;
  runtime::TokenSigner signer_;
  const std::string configured_;  // empty: tokens are made here
  std::string made_;              // on the door's thread only, as the next
  int64_t made_until_s_ = 0;
  std::string endpoint_;
  doors::DnsDoor door_;
};

}  // namespace uccp::server
