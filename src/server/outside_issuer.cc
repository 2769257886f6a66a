#include "server/outside_issuer.h"

#include <algorithm>

#include "base/log.h"
#include "runtime/http_get.h"
#include "server/discovery_document.h"
#include "server/shared_issuer.h"

namespace uccp::server {

OutsideIssuer::OutsideIssuer(OutsideIssuerOptions options, Executor& work, const Clock& clock)
    : options_(std::move(options)),
      work_(work),
      clock_(clock),
      verifier_({.issuer = options_.url,
                 .audience = options_.audience,
                 .foreign = true,
                 .subject_claim = options_.subject_claim,
                 .groups_claim = options_.groups_claim}) {
  verifier_.set_key_source([this](std::string_view key_id) { return find_key(key_id); });
}

void OutsideIssuer::start() {
  {
    std::lock_guard lock(mutex_);
    fetching_ = true;
  }
  work_.post([this] { fetch(); });
}

void OutsideIssuer::stop() {
  std::lock_guard lock(mutex_);
  stopped_ = true;
}

std::optional<runtime::TokenKey> OutsideIssuer::find_key(std::string_view key_id) {
  std::lock_guard lock(mutex_);
  const auto it = keys_.find(key_id);
  if (it != keys_.end()) return it->second;
  // The issuer may have rotated its keys. Made-up key ids must not make this node hammer it.
  if (!fetching_ && !stopped_ && clock_.boot().ms_since(fetched_) >= kRefetchMs) {
    fetching_ = true;
    work_.post([this] { fetch(); });
  }
  return std::nullopt;
}

void OutsideIssuer::fetch() {
  const runtime::HttpGetOptions http{.ca_file = options_.ca_file};
  const auto load = [&]() -> Result<std::map<std::string, runtime::TokenKey, std::less<>>> {
    std::string base = options_.url;
    while (base.ends_with('/')) base.pop_back();
    UCCP_TRY(const std::string discovery, runtime::http_get(base + "/.well-known/openid-configuration", http));
    UCCP_TRY(const std::string url, keys_url(discovery, options_.url));
    UCCP_TRY(const std::string keys, runtime::http_get(url, http));
    return runtime::parse_jwks(keys);
  };
  auto keys = load();
  bool removed = false;
  std::lock_guard lock(mutex_);
  fetching_ = false;
  fetched_ = clock_.boot();
  if (stopped_) return;
  if (keys) {
    removed = std::ranges::any_of(keys_, [&](const auto& entry) { return !keys->contains(entry.first); });
    keys_ = std::move(*keys);
    fetched_once_ = true;
  } else {
    // Those that are known go on to count: an issuer that is down locks nobody out.
    log::warn("the keys of the OpenID Connect issuer cannot be fetched",
              {{"reason", keys.error().reason()}, {"detail", keys.error().message()}});
  }
  if (removed) revision_.fetch_add(1);
  work_.cancel(timer_);
  timer_ = work_.post_after(fetched_once_ ? kRefreshMs : kRefetchMs, [this] {
    {
      std::lock_guard again(mutex_);
      if (stopped_ || fetching_) return;
      fetching_ = true;
    }
    fetch();
  });
}

Result<call::Principal> OutsideIssuer::identify(const std::string& token, WallTime now) {
  auto claims = verifier_.verify(token, now);
  if (!claims) {
    std::lock_guard lock(mutex_);
    if (!fetched_once_ && claims.error().reason() == "TOKEN_SIGNATURE") {
      return fail(Code::kUnauthenticated, "ISSUER_KEYS_MISSING",
                  "the keys of " + options_.url + " were not fetched yet; see the log, and try again");
    }
    return std::unexpected(std::move(claims.error()));
  }
  return outside_principal(*claims, options_.tenant);
}

}  // namespace uccp::server
