// AES-256-GCM and the keys for it. The only place below `runtime` that encrypts.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/random.h"
#include "base/status.h"

namespace uccp {

// Overwrites what is no longer needed, so that it is not found in memory later. Copies that a library made stay.
void wipe(std::string& secret);

// 32 secret bytes, overwritten at the end.
class SecretKey {
 public:
  static constexpr size_t kBytes = 32;

  SecretKey() = default;  // of zeros, to be replaced
  SecretKey(const SecretKey&) = default;
  SecretKey& operator=(const SecretKey&) = default;
  ~SecretKey();

  // `random` must be the system's: a key from a seed is no secret.
  static SecretKey make(Random& random);
  // The form of key files: 64 hexadecimal digits, white space around them allowed. Errors: invalid KEY_INVALID.
  static Result<SecretKey> parse(std::string_view text);
  // From as many bytes, such as open() gave. Errors: invalid KEY_INVALID.
  static Result<SecretKey> from_bytes(std::string_view bytes);
  std::string text() const;  // with a newline

  // HKDF-SHA-256 (RFC 5869): a key for one purpose, so that no two files share one.
  SecretKey derive(std::string_view salt, std::string_view purpose) const;
  // 8 bytes that tell keys apart and say nothing about them.
  std::string id() const;
  std::string_view bytes() const { return {reinterpret_cast<const char*>(bytes_.data()), bytes_.size()}; }

 private:
  std::array<uint8_t, kBytes> bytes_{};
};

// Seals numbered pieces with one key. A number must be used once only with a key, else both pieces are laid bare.
class Aead {
 public:
  static constexpr size_t kTagBytes = 16;

  explicit Aead(SecretKey key) : key_(key) {}

  // Cipher text and tag. `bound` is not part of the result, but has to be given again to open it.
  std::string seal(uint64_t number, std::string_view bound, std::string_view plain) const;
  // None if anything differs from what was sealed.
  std::optional<std::string> open(uint64_t number, std::string_view bound, std::string_view sealed) const;

 private:
  const SecretKey key_;
};

}  // namespace uccp
