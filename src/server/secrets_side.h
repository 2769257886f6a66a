// The store of secrets of a node, put together. Built on the main thread; the environment must outlive it.
#pragma once

#include <memory>
#include <string>

#include "base/aead.h"
#include "call/handler.h"
#include "server/config.h"
#include "services/secrets/embedded_store.h"
#include "services/secrets/secrets_service.h"

namespace uccp::server {

// A key for one purpose that all nodes of the cluster have, from `token_key_pem`.
SecretKey nodes_key(const std::string& token_key_pem, std::string_view purpose);

class SecretsSide {
 public:
  // `random` is the system's. Errors: invalid CONFIG_INVALID.
  static Result<std::unique_ptr<SecretsSide>> make(const Config& config, const std::string& token_key_pem,
                                                   Random& random, secrets::SecretsEnvironment environment);
  void add_handlers(call::HandlerTable& handlers) { service_.add_handlers(handlers); }

 private:
  SecretsSide(secrets::SecretOptions options, secrets::SecretSeals seals, secrets::SecretsEnvironment environment)
      : store_(options, std::move(seals), std::move(environment)), service_(store_) {}

  secrets::EmbeddedSecretStore store_;
  secrets::SecretsService service_;
};

}  // namespace uccp::server
