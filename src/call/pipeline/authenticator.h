// Who a set of credentials belongs to. The server provides it from its keys and certificates.
#pragma once

#include "base/status.h"
#include "call/call.h"

namespace uccp::call {

class Authenticator {
 public:
  virtual ~Authenticator() = default;
  // A bearer token wins over a client certificate. Errors: unauthenticated with a reason that says what is wrong.
  // Callable from any thread; may be slow (signatures): the pipeline caches answers until they expire.
  virtual Result<Principal> authenticate(const Credentials& credentials) = 0;
  // For a principal that another node vouches for: whether its credential still counts here. Its groups and kind become
  // those of the stored user as this node knows it. Errors: unauthenticated. Callable from any thread.
  virtual Status check_again(Principal& principal) const = 0;
  // Grows when something was revoked: cached answers of older revisions are void.
  virtual uint64_t revision() const = 0;
};

}  // namespace uccp::call
