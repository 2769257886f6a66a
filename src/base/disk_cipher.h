// Ciphers for bytes that lie on a disk and are read and written anywhere. They hide, and do not authenticate: formats
// above have checksums of their own.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/aead.h"

namespace uccp {

// AES-256-XTS (IEEE 1619) on units of 512 bytes. Equal plain text in one place is equal cipher text, and nothing else
// tells about it; so a unit may be written again and again.
class XtsCipher {
 public:
  static constexpr size_t kUnitBytes = 512;
  static constexpr size_t kBlockBytes = 16;

  // Both keys come from `key`.
  explicit XtsCipher(const SecretKey& key);
  ~XtsCipher();
  XtsCipher(XtsCipher&&) noexcept;

  // `data` begins with unit `unit` and has a multiple of kBlockBytes. In place.
  void encrypt(uint64_t unit, char* data, size_t size);
  void decrypt(uint64_t unit, char* data, size_t size);

 private:
  struct Contexts;
  void run(void* context, uint64_t unit, char* data, size_t size);
  std::unique_ptr<Contexts> contexts_;
};

// AES-256 in counter mode. Only for what is written once: two texts in one place lay each other bare.
class CtrCipher {
 public:
  // `nonce` has 8 bytes and is used once with a key.
  CtrCipher(const SecretKey& key, std::string_view nonce);
  // Encrypts or decrypts, in place, what lies at `offset`. Callable from any thread.
  void apply(uint64_t offset, char* data, size_t size) const;

 private:
  const SecretKey key_;
  const std::string nonce_;
};

}  // namespace uccp
