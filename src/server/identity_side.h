// Everything of a node that has to do with who calls, put together: keys, the directory, the service, outside issuers.
//
// Built and ended on the main thread, before the doors open and after they are closed.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "call/handler.h"
#include "node/node.h"
#include "runtime/loop.h"
#include "server/authenticator.h"
#include "server/config.h"
#include "server/identity_crypto.h"
#include "server/outside_issuer.h"
#include "services/identity/identity_service.h"

namespace uccp::server {

struct IdentityKeys {
  std::string token_key_pem;  // of the operators; the same on all nodes
  std::string cluster_id;
};

struct IdentitySideEnvironment {
  FileSystem& files;
  node::Node& node;
  Executor& reads;
  const Clock& clock;
  Random& random;  // the system's
  MetricsRegistry& metrics;
  const call::PageTokenSigner& page_tokens;
};

class IdentitySide {
 public:
  // Errors: corruption PEM_INVALID, invalid CONFIG_INVALID.
  static Result<std::unique_ptr<IdentitySide>> make(const IdentityKeys& keys, const Config& config,
                                                    IdentitySideEnvironment environment);
  ~IdentitySide();

  void add_handlers(call::HandlerTable& handlers) { service_->add_handlers(handlers); }
  call::Authenticator& authenticator() { return *authenticator_; }
  std::shared_ptr<const call::PolicySet> policies() const { return directory_->policies(); }
  // By somebody who may: in the tenant of its principal, or by operators.
  bool certificate_is_revoked(const std::string& pem) const { return authenticator_->certificate_is_revoked(pem); }
  // Serial numbers that operators have revoked.
  std::vector<std::string> revoked_serials() const;
  // For services that ask for more than the permission of their method.
  std::function<bool(const call::Principal&, std::string_view permission)> permits() const;
  // Called when who may what has changed, on a thread of its own.
  void on_change(std::function<void()> callback) { directory_->on_change(std::move(callback)); }
  // Of sessions that begin from now on.
  void set_session_ttl(int64_t ms) { session_ttl_ms_.store(ms); }
  // No callback comes afterwards.
  void stop();

 private:
  explicit IdentitySide(const IdentityKeys& keys, IdentitySideEnvironment environment);
  bool has_data(const machine::Scope& scope) const;

  IdentitySideEnvironment env_;
  std::atomic<int64_t> session_ttl_ms_{0};
  ClusterCrypto crypto_;
  identity::ApiKeySecrets key_secrets_;
  runtime::Loop passwords_;  // slow hashes
  runtime::Loop outside_;    // waits for issuers
  std::shared_ptr<identity::IdentityDirectory> directory_;
  std::unique_ptr<OutsideIssuer> issuer_;
  std::unique_ptr<SharedIssuer> shared_issuer_;
  std::unique_ptr<KeyAuthenticator> authenticator_;
  std::unique_ptr<identity::IdentityService> service_;
};

}  // namespace uccp::server
