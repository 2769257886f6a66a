// Passwords and API keys at rest: Argon2id (RFC 9106) in its usual text form, and the codes of authenticator apps
// (RFC 6238).
//
// Hashing a password takes tens of milliseconds and 19 MiB of memory on purpose. Callable from any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace uccp::runtime {

struct HashCost {
  uint32_t memory_kib;
  uint32_t passes;
};
// What people think of: the least that OWASP names for Argon2id.
inline constexpr HashCost kPasswordCost{19 * 1024, 2};
// 256 random bits, which no price makes harder to guess: about a millisecond.
inline constexpr HashCost kApiKeyCost{1024, 1};

// "$argon2id$v=19$m=19456,t=2,p=1$<salt>$<hash>". `salt` are 16 random bytes.
Result<std::string> hash_password(std::string_view password, std::string_view salt, HashCost cost);
// At the cost that the hash names. False also if the text is no hash.
bool check_password(const std::string& hash, std::string_view password);

// Six digits.
std::string totp_code(std::string_view secret, uint64_t step);

}  // namespace uccp::runtime
