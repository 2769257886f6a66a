#include "server/authenticator.h"

#include <algorithm>

#include "runtime/pki.h"
#include "server/node_names.h"

namespace uccp::server {
namespace {

// "spiffe://uccp/tenant/<tenant>/principal/<name>".
bool parse_principal_uri(std::string_view uri, std::string& tenant, std::string& name) {
  constexpr std::string_view kPrefix = "spiffe://uccp/tenant/";
  constexpr std::string_view kMiddle = "/principal/";
  if (!uri.starts_with(kPrefix)) return false;
  uri.remove_prefix(kPrefix.size());
  const size_t middle = uri.find(kMiddle);
  if (middle == std::string_view::npos || middle == 0) return false;
  tenant = uri.substr(0, middle);
  name = uri.substr(middle + kMiddle.size());
  return !name.empty();
}

call::Principal::Kind kind_of(const std::vector<std::string>& roles) {
  for (const std::string& role : roles) {
    if (role == "agent") return call::Principal::Kind::kAgent;
  }
  return call::Principal::Kind::kUser;
}

}  // namespace

KeyAuthenticator::KeyAuthenticator(Options options, const identity::IdentityDirectory& directory, const Clock& clock)
    : options_(std::move(options)),
      directory_(directory),
      clock_(clock),
      operators_({.issuer = std::string(kTokenIssuer), .audience = std::string(kTokenAudience)}),
      issued_({.issuer = std::string(kTokenIssuer), .audience = std::string(kTokenAudience)}) {
  issued_.set_key_source([this](std::string_view key_id) -> std::optional<runtime::TokenKey> {
    const auto pem = directory_.signing_key(key_id);
    if (!pem) return std::nullopt;
    auto key = runtime::TokenKey::from_public_pem(*pem);
    return key ? std::optional(std::move(*key)) : std::nullopt;
  });
}

Result<std::unique_ptr<KeyAuthenticator>> KeyAuthenticator::make(const Options& options,
                                                                 const identity::IdentityDirectory& directory,
                                                                 const Clock& clock) {
  std::unique_ptr<KeyAuthenticator> made(new KeyAuthenticator(options, directory, clock));
  UCCP_RETURN_IF_ERROR(made->operators_.add_key(options.operator_key_pem));
  return made;
}

uint64_t KeyAuthenticator::revision() const {
  return directory_.revision() + (options_.outside == nullptr ? 0 : options_.outside->revision());
}

Result<call::Principal> KeyAuthenticator::authenticate(const call::Credentials& credentials) {
  UCCP_TRY(call::Principal principal, identify(credentials));
  if (principal.kind == call::Principal::Kind::kNode) return principal;
  UCCP_RETURN_IF_ERROR(directory_.check_principal(principal.tenant, principal.name));
  directory_.complete(principal);
  return principal;
}

Status KeyAuthenticator::check_again(call::Principal& principal) const {
  using Credential = call::Principal::Credential;
  if (principal.kind == call::Principal::Kind::kNode) return Status::ok();
  UCCP_RETURN_IF_ERROR(directory_.check_principal(principal.tenant, principal.name));
  switch (principal.credential) {
    case Credential::kToken:
    case Credential::kOidc:
      UCCP_RETURN_IF_ERROR(directory_.check_token(principal.tenant, principal.name, principal.credential_id,
                                                  principal.session, principal.issued_us));
      break;
    case Credential::kCertificate:
      UCCP_RETURN_IF_ERROR(directory_.check_certificate(principal.tenant, principal.credential_id));
      break;
    case Credential::kApiKey: UCCP_RETURN_IF_ERROR(directory_.check_api_key(principal.credential_id)); break;
    case Credential::kNone: break;
  }
  principal.groups.resize(std::min(principal.credential_groups, principal.groups.size()));
  directory_.complete(principal);
  return Status::ok();
}

Result<call::Principal> KeyAuthenticator::identify(const call::Credentials& credentials) const {
  const std::string& bearer = credentials.bearer_token;
  if (bearer.empty()) return from_certificate(credentials.certificate_pem);
  return bearer.starts_with(identity::kApiKeyPrefix) ? from_api_key(bearer) : from_token(bearer);
}

Result<call::Principal> KeyAuthenticator::from_api_key(const std::string& key) const {
  UCCP_TRY(const auto row, directory_.find_api_key(key));
  call::Principal principal;
  principal.kind = call::Principal::Kind::kUser;
  principal.tenant = row.tenant();
  principal.name = row.key().principal();
  principal.namespaces.assign(row.key().namespaces().begin(), row.key().namespaces().end());
  principal.credential = call::Principal::Credential::kApiKey;
  principal.credential_id = row.key().id();
  const auto& until = row.key().expire_time();
  if (row.key().has_expire_time()) principal.expires_us = until.seconds() * 1'000'000 + until.nanos() / 1000;
  return principal;
}

Result<call::Principal> KeyAuthenticator::from_token(const std::string& token) const {
  const std::string issuer = runtime::unverified_claims(token).issuer;
  const bool by_shared = options_.shared != nullptr && options_.shared->is_issuer(issuer);
  if (by_shared || (options_.outside != nullptr && options_.outside->is_issuer(issuer))) {
    UCCP_TRY(call::Principal principal, by_shared ? options_.shared->identify(token, clock_.wall())
                                                  : options_.outside->identify(token, clock_.wall()));
    UCCP_RETURN_IF_ERROR(
        directory_.check_token(principal.tenant, principal.name, principal.credential_id, "", principal.issued_us));
    return principal;
  }
  auto claims = operators_.verify(token, clock_.wall());
  const bool of_operators = claims.has_value();
  // The key decides which of both it is: neither knows the other's.
  if (!claims && claims.error().reason() == "TOKEN_SIGNATURE") claims = issued_.verify(token, clock_.wall());
  if (!claims) return std::unexpected(std::move(claims.error()));
  call::Principal principal;
  principal.kind = kind_of(claims->roles);
  principal.tenant = claims->tenant;
  principal.name = claims->subject;
  // A token that was issued here has no roles of its own: what it may is decided anew with each call.
  if (of_operators) principal.roles = claims->roles;
  principal.namespaces = claims->namespaces;
  principal.expires_us = claims->expires_at_s * 1'000'000;
  principal.credential = call::Principal::Credential::kToken;
  principal.credential_id = claims->token_id;
  principal.session = claims->session;
  principal.issued_us = claims->issued_at_s * 1'000'000;
  if (principal.tenant.empty()) {
    return fail(Code::kUnauthenticated, "TOKEN_TENANT", "the token names no tenant; ask its issuer for one that does");
  }
  UCCP_RETURN_IF_ERROR(directory_.check_token(principal.tenant, principal.name, principal.credential_id,
                                              principal.session, principal.issued_us));
  return principal;
}

bool KeyAuthenticator::certificate_is_revoked(const std::string& pem) const {
  const auto principal = from_certificate(pem);
  return !principal && principal.error().reason() == "CERTIFICATE_REVOKED";
}

Result<call::Principal> KeyAuthenticator::from_certificate(const std::string& pem) const {
  // The door has verified the chain; here it is only read.
  auto info = runtime::inspect_certificate(pem);
  if (!info) {
    return fail(Code::kUnauthenticated, "CERTIFICATE_INVALID", "the client certificate cannot be read");
  }
  call::Principal principal;
  principal.roles = info->organizations;
  principal.kind = kind_of(principal.roles);
  principal.expires_us = info->not_after.us;
  principal.credential = call::Principal::Credential::kCertificate;
  principal.credential_id = info->serial;
  principal.issued_us = info->not_before.us;
  for (const std::string& uri : info->uris) {
    if (parse_principal_uri(uri, principal.tenant, principal.name)) {
      UCCP_RETURN_IF_ERROR(directory_.check_certificate(principal.tenant, info->serial));
      return principal;
    }
    std::string cluster_id;
    NodeId node;
    if (!parse_node_uri(uri, cluster_id, node)) continue;
    if (cluster_id != options_.cluster_id) {
      return fail(Code::kUnauthenticated, "CERTIFICATE_CLUSTER",
                  "the certificate is that of a node of cluster " + cluster_id + ", and this is cluster " +
                      options_.cluster_id);
    }
    UCCP_RETURN_IF_ERROR(directory_.check_certificate(call::kSystemTenant, info->serial));
    principal.kind = call::Principal::Kind::kNode;
    principal.tenant = std::string(call::kSystemTenant);
    principal.name = "n" + std::to_string(node.value);
    principal.roles = {"node"};
    return principal;
  }
  return fail(Code::kUnauthenticated, "CERTIFICATE_PRINCIPAL",
              "the client certificate of '" + info->common_name +
                  "' names no principal (a URI spiffe://uccp/tenant/TENANT/principal/NAME)");
}

}  // namespace uccp::server
