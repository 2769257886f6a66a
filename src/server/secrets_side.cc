#include "server/secrets_side.h"

#include "base/hash.h"

namespace uccp::server {
namespace {

constexpr int64_t kSecretsMax = int64_t{1} << 30;
// With values of 64 KiB a secret has to fit into one command of the log.
constexpr int64_t kVersionsMax = 16;

}  // namespace

SecretKey nodes_key(const std::string& token_key_pem, std::string_view purpose) {
  std::string digest = sha256(token_key_pem);
  const auto root = SecretKey::from_bytes(digest);
  wipe(digest);
  return root->derive("uccp", purpose);
}

Result<std::unique_ptr<SecretsSide>> SecretsSide::make(const Config& config, const std::string& token_key_pem,
                                                       Random& random, secrets::SecretsEnvironment environment) {
  secrets::SecretOptions options;
  UCCP_TRY(options.secrets_max, config.integer_between("secrets_max", 1, kSecretsMax));
  UCCP_TRY(const uint64_t versions, config.integer_between("secret_versions_max", 1, kVersionsMax));
  options.versions_max = static_cast<uint32_t>(versions);
  return std::unique_ptr<SecretsSide>(new SecretsSide(
      options, secrets::SecretSeals(nodes_key(token_key_pem, "uccp secrets"), random), std::move(environment)));
}

}  // namespace uccp::server
