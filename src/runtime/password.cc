#include "runtime/password.h"

#include <argon2.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <array>
#include <cstdio>

#include "base/bytes.h"

namespace uccp::runtime {
namespace {

constexpr size_t kHashBytes = 32;
constexpr size_t kEncodedBytesMax = 256;

}  // namespace

Result<std::string> hash_password(std::string_view password, std::string_view salt, HashCost cost) {
  std::array<char, kEncodedBytesMax> encoded{};
  const int failed = argon2id_hash_encoded(cost.passes, cost.memory_kib, 1, password.data(), password.size(),
                                           salt.data(), salt.size(), kHashBytes, encoded.data(), encoded.size());
  if (failed != ARGON2_OK) {
    return fail(Code::kInternal, "PASSWORD_HASH_FAILED",
                std::string("a password cannot be hashed: ") + argon2_error_message(failed));
  }
  return std::string(encoded.data());
}

bool check_password(const std::string& hash, std::string_view password) {
  return argon2id_verify(hash.c_str(), password.data(), password.size()) == ARGON2_OK;
}

std::string totp_code(std::string_view secret, uint64_t step) {
  const std::string message = ByteWriter().u64(step).take();
  std::array<unsigned char, EVP_MAX_MD_SIZE> mac{};
  unsigned size = 0;
  HMAC(EVP_sha1(), secret.data(), static_cast<int>(secret.size()),
       reinterpret_cast<const unsigned char*>(message.data()), message.size(), mac.data(), &size);
  // Dynamic truncation of RFC 4226, 5.3.
  const size_t at = mac[size - 1] & 15;
  const uint32_t bits = (static_cast<uint32_t>(mac[at] & 0x7f) << 24) | (static_cast<uint32_t>(mac[at + 1]) << 16) |
                        (static_cast<uint32_t>(mac[at + 2]) << 8) | mac[at + 3];
  std::array<char, 8> digits{};
  std::snprintf(digits.data(), digits.size(), "%06u", bits % 1'000'000);
  return digits.data();
}

}  // namespace uccp::runtime
