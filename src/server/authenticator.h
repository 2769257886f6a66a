// Principals from client certificates, access tokens, API keys and tokens of an outside issuer.
//
// What a credential says is checked with keys; whether it still counts, and who stands behind it, is asked of the
// replicated state: tenant, user, revocations. Callable from any thread.
#pragma once

#include <memory>
#include <string>

#include "base/clock.h"
#include "base/ids.h"
#include "call/pipeline/authenticator.h"
#include "runtime/jwt.h"
#include "server/outside_issuer.h"
#include "server/shared_issuer.h"
#include "services/identity/identity_directory.h"

namespace uccp::server {

inline constexpr std::string_view kTokenIssuer = "uccp";
inline constexpr std::string_view kTokenAudience = "uccp";

class KeyAuthenticator final : public call::Authenticator {
 public:
  struct Options {
    std::string operator_key_pem;  // public half of the key of the operators, whose tokens name roles themselves
    std::string cluster_id;        // certificates of nodes are accepted from this cluster
    OutsideIssuer* outside = nullptr;
    const SharedIssuer* shared = nullptr;
  };
  // Errors: corruption PEM_INVALID. `directory`, `clock` and the outside issuer must outlive it.
  static Result<std::unique_ptr<KeyAuthenticator>> make(const Options& options,
                                                        const identity::IdentityDirectory& directory,
                                                        const Clock& clock);

  Result<call::Principal> authenticate(const call::Credentials& credentials) override;
  Status check_again(call::Principal& principal) const override;
  bool certificate_is_revoked(const std::string& pem) const;
  uint64_t revision() const override;

 private:
  KeyAuthenticator(Options options, const identity::IdentityDirectory& directory, const Clock& clock);
  Result<call::Principal> identify(const call::Credentials& credentials) const;
  Result<call::Principal> from_token(const std::string& token) const;
  Result<call::Principal> from_api_key(const std::string& key) const;
  Result<call::Principal> from_certificate(const std::string& pem) const;

  const Options options_;
  const identity::IdentityDirectory& directory_;
  const Clock& clock_;
  runtime::TokenVerifier operators_;  // tokens of the operators' key
  runtime::TokenVerifier issued_;     // tokens that this cluster issued
};

}  // namespace uccp::server
