// The methods of Secrets, on whichever store there is. Must outlive every call. Callable from any thread.
#pragma once

#include "call/handler.h"
#include "services/secrets/secrets_port.h"

namespace uccp::secrets {

class SecretsService {
 public:
  explicit SecretsService(SecretStore& store) : store_(store) {}
  void add_handlers(call::HandlerTable& handlers);

 private:
  SecretStore& store_;
};

}  // namespace uccp::secrets
