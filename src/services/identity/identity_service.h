// The methods of Identity, and Administration/RevokeToken.
//
// Each changes only the tenant of the caller, or another one if the caller may operate tenants. Nobody gives away more
// than it has: roles, keys and tokens that would let somebody do more than the caller are refused. Secrets are made and
// hashed here and never reach the log of commands in the clear.
// Threads: handlers run on any thread; passwords are hashed on the executor given. Must outlive every call.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/executor.h"
#include "base/metrics.h"
#include "base/random.h"
#include "call/handler.h"
#include "call/listing.h"
#include "call/policy/policy_set.h"
#include "machine/ports.h"
#include "services/identity/identity_directory.h"
#include "services/identity/identity_ports.h"
#include "services/identity/identity_state.h"
#include "services/identity/sign_in_throttle.h"
#include "uccp/v1/admin.pb.h"

namespace uccp::identity {

// Everything must outlive the service.
struct IdentityEnvironment {
  machine::Proposer& proposer;
  machine::Reader& reader;
  Executor& work;       // lists
  Executor& passwords;  // slow hashes
  const Clock& clock;
  Random& random;  // for ids
  MetricsRegistry& metrics;
  const call::PageTokenSigner& page_tokens;
  IdentityCrypto& crypto;
  ApiKeySecrets& key_secrets;
  const IdentityDirectory& directory;
  std::function<uint32_t()> feature_level;  // of the cluster
  // Whether a tenant, or a namespace of it, holds services, locks or tasks at work.
  std::function<bool(const machine::Scope& scope)> has_data;
  std::string issuer = "uccp";  // shown in authenticator apps
  std::function<int64_t()> session_ttl_ms = [] { return int64_t{12} * 3600 * 1000; };
};

// Passwords that wait to be checked; more attempts are refused.
inline constexpr size_t kHashesWaitingMax = 64;

class IdentityService {
 public:
  explicit IdentityService(IdentityEnvironment environment);
  void add_handlers(call::HandlerTable& handlers);

 private:
  using CallPtr = call::CallPtr;
  using Shown = std::function<void(std::string row)>;

  // identity_service.cc: what is configured.
  void put(const CallPtr& call, std::string_view bytes, internal::v1::PutIdentityCommand command, Shown shown = {});
  void remove(const CallPtr& call, std::string_view bytes, internal::v1::DeleteIdentityCommand command);
  void create_tenant(const CallPtr& call, const std::string& bytes);
  void update_tenant(const CallPtr& call, const std::string& bytes);
  void delete_tenant(const CallPtr& call, const std::string& bytes);
  void sweep_tenant(const CallPtr& call, const std::string& tenant);
  void delete_namespace(const CallPtr& call, const std::string& bytes);
  void create_user(const CallPtr& call, const std::string& bytes);
  void update_user(const CallPtr& call, const std::string& bytes);
  void put_role(const CallPtr& call, const std::string& bytes, bool create);
  void create_binding(const CallPtr& call, const std::string& bytes);
  void set_policy(const CallPtr& call, const std::string& bytes);
  // identity_reads.cc
  void add_reads(call::HandlerTable& handlers);
  void add_lists(call::HandlerTable& handlers);
  void who_am_i(const CallPtr& call);
  void explain(const CallPtr& call, const v1::ExplainAccessRequest& request);
  void signing_keys(const CallPtr& call);
  // identity_tokens.cc: what is proven.
  void add_tokens(call::HandlerTable& handlers);
  void set_password(const CallPtr& call, const v1::SetPasswordRequest& request);
  void enroll_mfa(const CallPtr& call, const std::string& bytes);
  void confirm_mfa(const CallPtr& call, const v1::ConfirmMfaRequest& request);
  void create_api_key(const CallPtr& call, const std::string& bytes);
  void sign_in(const CallPtr& call, v1::SignInRequest request);
  void check_sign_in(const CallPtr& call, const v1::SignInRequest& request, const machine::GroupView& view);
  void refuse_sign_in(const CallPtr& call, const v1::SignInRequest& request, bool known);
  void propose_sign_in(const CallPtr& call, const internal::v1::SignInCommand& command,
                       std::function<void(machine::Applied)> done);
  bool begin_hash();
  void end_hash();
  void exchange(const CallPtr& call, const v1::ExchangeTokenRequest& request);
  void sign_out(const CallPtr& call);
  void issue_token(const CallPtr& call, const v1::IssueTokenRequest& request);
  void rotate_keys(const CallPtr& call, const std::string& bytes);
  void revoke(const CallPtr& call, const std::string& bytes);
  void revoke_certificate(const CallPtr& call, const std::string& bytes);
  // Signs with the present key, making the first one if there is none.
  void sign(const CallPtr& call, AccessTokenClaims claims, std::function<void(std::string token)> done);
  void answer_tokens(const CallPtr& call, const internal::v1::SessionRow& session, const std::string& refresh);

  // --- rules that many share (identity_rules.cc) ---
  // The tenant that a request is about. Errors: permission TENANT_DENIED.
  Result<std::string> target_tenant(const call::Call& call, const std::string& named) const;
  bool operates_tenants(const call::Call& call) const;
  // Errors: permission PRIVILEGE_ESCALATION, naming what the caller has not.
  Status may_give(const call::Call& call, const std::string& tenant, const call::PermissionSet& permissions,
                  const std::vector<std::string>& namespaces) const;
  // The caller may act for another: it is itself, or has `identity.write` and all that the other may.
  Status may_act_for(const call::Call& call, const std::string& tenant, const std::string& name,
                     const std::vector<std::string>& groups) const;
  Result<call::PermissionSet> permissions_of(const std::string& tenant, const v1::Role& role) const;
  Status check_statements(const call::Call& call, const std::string& tenant, const std::string& text) const;
  std::string make_id(std::string_view prefix);

  void propose(const CallPtr& call, std::string_view bytes, std::string_view verb,
               const google::protobuf::MessageLite& command, std::function<void(machine::Applied)> done);
  void read(const CallPtr& call, std::function<void(const machine::GroupView&)> then);

  IdentityEnvironment env_;
  std::mutex mutex_;  // random numbers and hashes that wait
  size_t hashes_waiting_ = 0;
  SignInThrottle throttle_;
  std::string dummy_hash_;  // of no password: wrong names take as long as wrong passwords
};

// Errors: invalid PASSWORD_WEAK.
Status check_password_strength(std::string_view password, std::string_view user);

}  // namespace uccp::identity
