#include "services/identity/api_key_secrets.h"

#include "base/bytes.h"
#include "call/listing.h"
#include "services/feature_types.h"
#include "services/identity/identity_directory.h"

namespace uccp::identity {
namespace {

constexpr size_t kProcessKeyBytes = 32;
constexpr size_t kSha256Bytes = 32;  // every text of Argon2id is longer

}  // namespace

ApiKeySecrets::ApiKeySecrets(IdentityCrypto& crypto)
    : crypto_(crypto), process_key_(crypto.random_bytes(kProcessKeyBytes)) {}

Result<std::string> ApiKeySecrets::stored(const std::string& secret, uint32_t feature_level) {
  if (feature_level < services::kAdministrationLevel) return hash_secret(secret);
  return crypto_.hash_api_key(secret);
}

bool ApiKeySecrets::is_right(const std::string& stored, const std::string& secret) {
  if (stored.size() == kSha256Bytes) return same_secret(stored, hash_secret(secret));
  const std::string proof = call::hmac_sha256(process_key_, ByteWriter().key_part(stored).raw(secret).data());
  {
    std::lock_guard lock(mutex_);
    if (right_.contains(proof)) return true;
  }
  if (!crypto_.check_password(stored, secret)) return false;
  std::lock_guard lock(mutex_);
  if (right_.size() >= kRememberedMax) right_.clear();
  right_.insert(proof);
  return true;
}

}  // namespace uccp::identity
