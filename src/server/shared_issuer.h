// An issuer that signs its tokens with a secret that it shares with this cluster (HS256). Off unless an operator names
// the issuer and the file of the secret: whoever can check such a token could also make one.
//
// As with other outside issuers, tenant and roles are not for it to say. Immutable; callable from any thread.
#pragma once

#include <memory>
#include <string>

#include "base/clock.h"
#include "base/file_system.h"
#include "call/principal.h"
#include "runtime/jwt.h"
#include "server/config.h"

namespace uccp::server {

class SharedIssuer {
 public:
  // None if it is off. Errors: invalid CONFIG_INVALID, KEY_TOO_SHORT; those of the file.
  static Result<std::unique_ptr<SharedIssuer>> open(const Config& config, FileSystem& files);

  bool is_issuer(std::string_view issuer) const { return issuer == issuer_; }
  // Errors: those of TokenVerifier::verify.
  Result<call::Principal> identify(const std::string& token, WallTime now) const;

 private:
  SharedIssuer(const Config& config, runtime::TokenKey key);

  const std::string issuer_;
  const std::string tenant_;
  runtime::TokenVerifier verifier_;
};

// Who the subject of an outside issuer's token is here.
call::Principal outside_principal(const runtime::TokenClaims& claims, const std::string& tenant);

}  // namespace uccp::server
