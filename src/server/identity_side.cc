#include "server/identity_side.h"

#include "machine/table.h"

namespace uccp::server {
namespace {

// A hash takes tens of milliseconds, a fetch seconds: neither is a stall.
constexpr int64_t kNoStallMs = 60'000;

// Tables whose rows are services, locks, semaphores, elections, barriers, latches, keys, secrets and tasks at work.
struct DataTable {
  GroupId group;
  machine::TableId table;
};
constexpr DataTable kDataTables[] = {{kCoreGroup, 16}, {kCoreGroup, 50},  {kCoreGroup, 65}, {kCoreGroup, 67},
                                     {kCoreGroup, 81}, {kCoreGroup, 248}, {kWorkGroup, 33}};

Result<OutsideIssuerOptions> issuer_options(const Config& config) {
  const std::string& provider = config.text("auth_provider");
  if (provider != "jwt" && provider != "oidc") {
    return fail(Code::kInvalid, "CONFIG_INVALID", "auth_provider '" + provider + "' is not jwt or oidc");
  }
  OutsideIssuerOptions options;
  options.url = config.text("oidc_issuer_url");
  if (provider == "oidc" && options.url.empty()) {
    return fail(Code::kInvalid, "CONFIG_INVALID", "auth_provider is oidc, so oidc_issuer_url has to be set");
  }
  if (!options.url.empty() && !options.url.starts_with("https://") && !options.url.starts_with("http://")) {
    return fail(Code::kInvalid, "CONFIG_INVALID",
                "oidc_issuer_url '" + options.url + "' is no URL such as https://login.example.com");
  }
  options.audience = config.text("oidc_audience");
  options.tenant = config.text("oidc_tenant");
  options.subject_claim = config.text("oidc_subject_claim");
  options.groups_claim = config.text("oidc_groups_claim");
  options.ca_file = config.text("oidc_ca_file");
  return options;
}

}  // namespace

IdentitySide::IdentitySide(const IdentityKeys& keys, IdentitySideEnvironment environment)
    : env_(environment),
      crypto_(keys.token_key_pem, environment.random),
      key_secrets_(crypto_),
      passwords_(environment.clock, runtime::LoopOptions{.stall_ms = kNoStallMs}),
      outside_(environment.clock, runtime::LoopOptions{.stall_ms = kNoStallMs}) {}

IdentitySide::~IdentitySide() { stop(); }

Result<std::unique_ptr<IdentitySide>> IdentitySide::make(const IdentityKeys& keys, const Config& config,
                                                         IdentitySideEnvironment environment) {
  std::unique_ptr<IdentitySide> side(new IdentitySide(keys, environment));
  IdentitySide& s = *side;
  s.set_session_ttl(config.duration_ms("session_ttl"));
  node::Node& node = environment.node;
  const auto view = [&node] { return node.view(kCoreGroup); };
  s.directory_ = identity::IdentityDirectory::make(
      {node, view, s.key_secrets_, environment.reads, environment.clock, environment.metrics});
  UCCP_TRY(OutsideIssuerOptions outside, issuer_options(config));
  if (!outside.url.empty())
    s.issuer_ = std::make_unique<OutsideIssuer>(std::move(outside), s.outside_, environment.clock);
  UCCP_TRY(s.shared_issuer_, SharedIssuer::open(config, environment.files));
  UCCP_TRY(const auto signer, runtime::TokenSigner::from_pem(keys.token_key_pem));
  UCCP_TRY(s.authenticator_, KeyAuthenticator::make({.operator_key_pem = signer.public_key_pem(),
                                                     .cluster_id = keys.cluster_id,
                                                     .outside = s.issuer_.get(),
                                                     .shared = s.shared_issuer_.get()},
                                                    *s.directory_, environment.clock));
  s.service_ = std::make_unique<identity::IdentityService>(identity::IdentityEnvironment{
      .proposer = node,
      .reader = node,
      .work = environment.reads,
      .passwords = s.passwords_,
      .clock = environment.clock,
      .random = environment.random,
      .metrics = environment.metrics,
      .page_tokens = environment.page_tokens,
      .crypto = s.crypto_,
      .key_secrets = s.key_secrets_,
      .directory = *s.directory_,
      .feature_level = [&node] { return node.feature_level(); },
      .has_data = [raw = side.get()](const machine::Scope& scope) { return raw->has_data(scope); },
      .session_ttl_ms = [raw = side.get()] { return raw->session_ttl_ms_.load(); }});
  s.passwords_.start("uccp-passwords");
  if (s.issuer_) {
    s.outside_.start("uccp-issuer");
    s.issuer_->start();
  }
  s.directory_->start();
  return side;
}

void IdentitySide::stop() {
  if (directory_) directory_->stop();
  if (issuer_) issuer_->stop();
  outside_.stop();
  passwords_.stop();
}

std::function<bool(const call::Principal&, std::string_view)> IdentitySide::permits() const {
  return [directory = directory_](const call::Principal& principal, std::string_view permission) {
    const std::string where = principal.namespaces.empty() ? "" : principal.namespaces.front();
    return directory->policies()->permits(principal, permission, where);
  };
}

std::vector<std::string> IdentitySide::revoked_serials() const {
  std::vector<std::string> out;
  const std::string prefix = identity::certificate_revocation_key("");
  identity::kRevocations.scan(env_.node.view(kCoreGroup), identity::tenant_scope(call::kOperatorsTenant), prefix, "",
                              [&](std::string_view key, const auto&) {
                                out.emplace_back(key.substr(prefix.size()));
                                return true;
                              });
  return out;
}

bool IdentitySide::has_data(const machine::Scope& scope) const {
  for (const DataTable& data : kDataTables) {
    ByteWriter prefix = machine::table_key::begin(data.table).key_part(scope.tenant);
    if (!scope.name_space.empty()) prefix.key_part(scope.name_space);
    bool any = false;
    env_.node.view(data.group)
        .scan(prefix.data(), machine::prefix_end(prefix.data()), [&](std::string_view, std::string_view) {
          any = true;
          return false;
        });
    if (any) return true;
  }
  return false;
}

}  // namespace uccp::server
