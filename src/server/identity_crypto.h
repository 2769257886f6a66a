// The cryptography that identity needs, with the keys of this cluster.
#pragma once

#include <mutex>
#include <string>

#include "base/aead.h"
#include "services/identity/identity_ports.h"

namespace uccp::server {

class ClusterCrypto final : public identity::IdentityCrypto {
 public:
  // `cluster_secret` is the same on all nodes: their token key. `random` is the system's.
  ClusterCrypto(const std::string& cluster_secret, Random& random);

  Result<std::string> hash_password(const std::string& password) override;
  bool check_password(const std::string& hash, const std::string& password) override;
  Result<std::string> hash_api_key(const std::string& secret) override;
  std::string seal(std::string_view secret, std::string_view context) override;
  Result<std::string> open(std::string_view sealed, std::string_view context) override;
  std::string random_bytes(size_t size) override;
  std::string totp(std::string_view secret, uint64_t step) override;
  Result<identity::SigningKeyPair> make_signing_key() override;
  Result<std::string> sign(const std::string& private_pem, const identity::AccessTokenClaims& claims) override;
  Result<identity::PublicJwk> jwk(const std::string& public_pem) override;
  std::pair<std::string, std::string> token_id(const std::string& token) override;

 private:
  SecretKey key_;
  std::mutex mutex_;
  Random& random_;
};

}  // namespace uccp::server
