#include "server/shared_issuer.h"

#include "server/authenticator.h"

namespace uccp::server {
namespace {

constexpr uint64_t kSecretBytesMax = 4096;

Status invalid(const std::string& message) { return Status(Code::kInvalid, "CONFIG_INVALID", message); }

}  // namespace

SharedIssuer::SharedIssuer(const Config& config, runtime::TokenKey key)
    : issuer_(config.text("hs256_issuer")),
      tenant_(config.text("oidc_tenant")),
      verifier_({.issuer = issuer_,
                 .audience = config.text("oidc_audience"),
                 .foreign = true,
                 .subject_claim = config.text("oidc_subject_claim"),
                 .groups_claim = config.text("oidc_groups_claim")}) {
  verifier_.set_only_key(std::move(key));
}

Result<std::unique_ptr<SharedIssuer>> SharedIssuer::open(const Config& config, FileSystem& files) {
  const std::string& issuer = config.text("hs256_issuer");
  const std::string& file = config.text("hs256_key_file");
  if (issuer.empty() != file.empty()) return fail(invalid("hs256_issuer and hs256_key_file have to be set together"));
  if (issuer.empty()) return std::unique_ptr<SharedIssuer>();
  if (issuer == kTokenIssuer || issuer == config.text("oidc_issuer_url")) {
    return fail(invalid("hs256_issuer '" + issuer +
                        "' is an issuer with keys of its own: its tokens must not be taken by a shared secret"));
  }
  UCCP_TRY(std::string secret, read_file(files, file, kSecretBytesMax));
  while (secret.ends_with('\n') || secret.ends_with('\r')) secret.pop_back();
  UCCP_TRY(runtime::TokenKey key, runtime::TokenKey::from_secret(std::move(secret)));
  return std::unique_ptr<SharedIssuer>(new SharedIssuer(config, std::move(key)));
}

Result<call::Principal> SharedIssuer::identify(const std::string& token, WallTime now) const {
  UCCP_TRY(const runtime::TokenClaims claims, verifier_.verify(token, now));
  return outside_principal(claims, tenant_);
}

call::Principal outside_principal(const runtime::TokenClaims& claims, const std::string& tenant) {
  call::Principal principal;
  principal.kind = call::Principal::Kind::kUser;
  principal.tenant = tenant;
  principal.name = claims.subject;
  principal.groups = claims.groups;
  principal.expires_us = claims.expires_at_s * 1'000'000;
  principal.issued_us = claims.issued_at_s * 1'000'000;
  principal.credential = call::Principal::Credential::kOidc;
  principal.credential_id = claims.token_id;
  return principal;
}

}  // namespace uccp::server
