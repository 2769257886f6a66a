// IdentityDirectory: what authentication asks the replicated state, on every node, without waiting.
//
// It keeps the PolicySet of the newest state: every change of topic "identity" leads to a new one, within milliseconds,
// and raises revision() when a credential may have ended, which voids what the pipeline remembers. Point reads go to
// the newest applied state of the node. Threads: start() and stop() on the main thread, the rest from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/executor.h"
#include "base/metrics.h"
#include "call/policy/policy_set.h"
#include "machine/ports.h"
#include "services/identity/api_key_secrets.h"
#include "services/identity/identity_state.h"

namespace uccp::identity {

// All that a PolicySet is made of.
call::PolicyInput read_policy_input(const machine::KeyReader& state, uint64_t revision);

struct DirectoryEnvironment {
  machine::Watcher& watcher;
  std::function<machine::GroupView()> view;  // newest applied state of the core group
  ApiKeySecrets& key_secrets;
  Executor& work;  // compiles
  const Clock& clock;
  MetricsRegistry& metrics;
};

class IdentityDirectory : public std::enable_shared_from_this<IdentityDirectory> {
 public:
  static std::shared_ptr<IdentityDirectory> make(DirectoryEnvironment environment) {
    return std::shared_ptr<IdentityDirectory>(new IdentityDirectory(std::move(environment)));
  }
  // Reads the state and follows it.
  void start();
  // Called after each new set, on the executor.
  void on_change(std::function<void()> callback);
  void stop();

  std::shared_ptr<const call::PolicySet> policies() const;
  // The same, certain to have all that this node has applied: for deciding what may be given away, where a set that is
  // a few milliseconds old could be used to get more.
  std::shared_ptr<const call::PolicySet> newest() const;
  // Grows when a credential may have ended or stands for somebody else now.
  uint64_t revision() const;

  // Errors, all unauthenticated: TENANT_SUSPENDED, TENANT_DELETED, USER_DISABLED.
  Status check_principal(std::string_view tenant, std::string_view name) const;
  // Groups of the stored user are added to those of the credential; a stored service account is a service.
  void complete(call::Principal& principal) const;
  // Errors: unauthenticated TOKEN_REVOKED.
  Status check_token(std::string_view tenant, std::string_view principal, std::string_view token_id,
                     std::string_view session, int64_t issued_us) const;
  // Errors: unauthenticated CERTIFICATE_REVOKED.
  Status check_certificate(std::string_view tenant, std::string_view serial) const;
  // Errors: unauthenticated API_KEY_INVALID.
  Status check_api_key(std::string_view id) const;
  // The row of a key whose secret is right. Errors: unauthenticated API_KEY_INVALID, API_KEY_EXPIRED.
  Result<internal::v1::ApiKeyRow> find_api_key(std::string_view key) const;
  // The public key, PEM, of a key that verifies now; nothing if there is none of this id.
  std::optional<std::string> signing_key(std::string_view key_id) const;

 private:
  explicit IdentityDirectory(DirectoryEnvironment environment) : env_(std::move(environment)) {}
  void follow(LogIndex since);
  void changed(const machine::Change& change);
  void compile();

  const DirectoryEnvironment env_;
  mutable std::mutex mutex_;
  std::shared_ptr<const call::PolicySet> policies_ = call::PolicySet::built_in();
  std::shared_ptr<machine::Watch> watch_;
  std::function<void()> on_change_;
  uint64_t revision_ = 1;
  bool compiling_ = false;
  bool again_ = false;
  bool stopped_ = false;
};

// "uccp_<id>_<secret>": the two parts. False if it is not of this form.
struct SecretParts {
  std::string id, secret;
};
inline constexpr std::string_view kApiKeyPrefix = "uccp_";
inline constexpr std::string_view kRefreshPrefix = "uccpr_";
bool split_secret(std::string_view text, std::string_view prefix, SecretParts& out);
// SHA-256 of the secret of a session, 32 random bytes that are changed with each use.
std::string hash_secret(std::string_view secret);
// In a time that does not depend on where they differ.
bool same_secret(std::string_view a, std::string_view b);

}  // namespace uccp::identity
