// An OpenID Connect issuer whose tokens are accepted: discovery (OIDC_ISSUER_URL), its keys, and their rotation.
//
// Keys are fetched in the background at the start, every hour, and when a token names a key that is not known, at most
// once in kRefetchMs. A token never waits for the network: the one that brought an unknown key is refused, and the
// client tries again. Tenant, roles and namespaces are not for the issuer to say: its users belong to one configured
// tenant, and get their roles from bindings to their name or to `group:` names of its groups claim. Callable from any
// thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/executor.h"
#include "call/principal.h"
#include "runtime/jwt.h"

namespace uccp::server {

struct OutsideIssuerOptions {
  std::string url;       // "https://login.example.com/realms/a", as in `iss`
  std::string audience;  // client id, as in `aud`
  std::string tenant = "default";
  std::string subject_claim = "sub";
  std::string groups_claim = "groups";
  std::string ca_file;
};

class OutsideIssuer {
 public:
  static constexpr int64_t kRefetchMs = 5'000;
  static constexpr int64_t kRefreshMs = 3'600'000;

  // Fetching runs on `work`, which may block. Both must outlive it.
  OutsideIssuer(OutsideIssuerOptions options, Executor& work, const Clock& clock);
  // Begins to fetch.
  void start();
  void stop();

  bool is_issuer(std::string_view issuer) const { return issuer == options_.url; }
  // Errors: those of TokenVerifier::verify; unauthenticated ISSUER_KEYS_MISSING while no keys were fetched yet.
  Result<call::Principal> identify(const std::string& token, WallTime now);
  // Grows when a key is gone: what was accepted with it is void.
  uint64_t revision() const { return revision_.load(); }

 private:
  std::optional<runtime::TokenKey> find_key(std::string_view key_id);
  void fetch();

  const OutsideIssuerOptions options_;
  Executor& work_;
  const Clock& clock_;
  runtime::TokenVerifier verifier_;
  std::atomic<uint64_t> revision_{0};
  std::mutex mutex_;
  std::map<std::string, runtime::TokenKey, std::less<>> keys_;
  BootTime fetched_;
  Executor::TimerId timer_ = 0;
  bool fetched_once_ = false;
  bool fetching_ = false;
  bool stopped_ = false;
};

}  // namespace uccp::server
