#include "server/dns_side.h"

#include <algorithm>

#include "base/log.h"
#include "server/authenticator.h"

namespace uccp::server {
namespace {

constexpr int64_t kTokenSeconds = 600;
constexpr std::string_view kPrincipal = "dns";
constexpr std::string_view kRole = "viewer";

}  // namespace

DnsSide::DnsSide(const Clock& clock, runtime::TokenSigner signer, std::string token)
    : clock_(clock), signer_(std::move(signer)), configured_(std::move(token)) {}

Result<std::unique_ptr<DnsSide>> DnsSide::open(uint16_t port, const Config& config, const std::string& token_key_pem,
                                               call::Pipeline& pipeline, const Clock& clock, MetricsRegistry& metrics) {
  doors::DnsDoorOptions options;
  options.host = config.text("dns_host");
  options.port = port;
  options.zone.name = doors::split_name(config.text("dns_domain"));
  if (options.zone.name.empty()) {
    return fail(Code::kInvalid, "CONFIG_INVALID",
                "dns_domain '" + config.text("dns_domain") + "' is no name of DNS; write it as uccp or svc.example");
  }
  for (std::string& label : options.zone.name) {
    std::ranges::transform(label, label.begin(),
                           [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  }
  options.zone.name_space = config.text("dns_namespace");
  options.zone.ttl_s = static_cast<uint32_t>(config.duration_ms("dns_ttl") / 1000);
  options.zone.negative_ttl_s = options.zone.ttl_s;
  UCCP_TRY(auto signer, runtime::TokenSigner::from_pem(token_key_pem));
  std::unique_ptr<DnsSide> side(new DnsSide(clock, std::move(signer), config.text("dns_token")));
  options.credentials = [self = side.get()] { return self->credentials(); };
  UCCP_TRY(const uint16_t at, side->door_.start(std::move(options), pipeline, clock, metrics));
  side->endpoint_ = config.text("dns_host") + ":" + std::to_string(at);
  return side;
}

// Tokens of the operators' key name their roles themselves; this one may only read, and is good for minutes.
call::Credentials DnsSide::credentials() {
  call::Credentials credentials;
  if (!configured_.empty()) {
    credentials.bearer_token = configured_;
    return credentials;
  }
  const int64_t now_s = clock_.wall().us / 1'000'000;
  // Also when the wall clock was set back.
  if (made_until_s_ - now_s < kTokenSeconds / 2 || made_until_s_ - now_s > kTokenSeconds) {
    runtime::TokenClaims claims;
    claims.issuer = std::string(kTokenIssuer);
    claims.audience = {std::string(kTokenAudience)};
    claims.subject = std::string(kPrincipal);
    claims.tenant = "default";
    claims.roles = {std::string(kRole)};
    claims.issued_at_s = now_s;
    claims.expires_at_s = now_s + kTokenSeconds;
    auto token = signer_.sign(claims);
    if (!token) log::error("no token for DNS", {{"reason", token.error().to_string()}});
    made_ = token.value_or("");
    made_until_s_ = claims.expires_at_s;
  }
  credentials.bearer_token = made_;
  return credentials;
}

}  // namespace uccp::server
