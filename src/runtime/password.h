// Passwords at rest: Argon2id (RFC 9106) in its usual text form, and the codes of authenticator apps (RFC 6238).
//
// Hashing takes tens of milliseconds and kPasswordMemoryKib of memory on purpose. Callable from any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace uccp::runtime {

inline constexpr uint32_t kPasswordMemoryKib = 19 * 1024;
inline constexpr uint32_t kPasswordPasses = 2;

// "$argon2id$v=19$m=19456,t=2,p=1$<salt>$<hash>". `salt` are 16 random bytes.
Result<std::string> hash_password(std::string_view password, std::string_view salt);
// False also if the text is no hash.
bool check_password(const std::string& hash, std::string_view password);

// Six digits.
std::string totp_code(std::string_view secret, uint64_t step);

}  // namespace uccp::runtime
