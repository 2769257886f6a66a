// Principals from client certificates and access tokens, with the keys of this node.
#pragma once

#include <string>

#include "base/clock.h"
#include "call/pipeline/authenticator.h"
#include "runtime/jwt.h"

namespace uccp::server {

inline constexpr std::string_view kTokenIssuer = "uccp";
inline constexpr std::string_view kTokenAudience = "uccp";

class KeyAuthenticator final : public call::Authenticator {
 public:
  // `verifier` knows the keys of the issuers that are trusted.
  KeyAuthenticator(runtime::TokenVerifier verifier, const Clock& clock)
      : verifier_(std::move(verifier)), clock_(clock) {}

  Result<call::Principal> authenticate(const call::Credentials& credentials) override;
  uint64_t revision() const override { return 1; }

 private:
  Result<call::Principal> from_token(const std::string& token) const;
  Result<call::Principal> from_certificate(const std::string& pem) const;

  runtime::TokenVerifier verifier_;
  const Clock& clock_;
};

}  // namespace uccp::server
