#include "base/aead.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <memory>

#include "base/bytes.h"
#include "base/check.h"
#include "base/hash.h"
#include "base/openssl_owners.h"

namespace uccp {
namespace {

constexpr size_t kNonceBytes = 12;

using openssl::Cipher;

const unsigned char* raw(std::string_view bytes) { return reinterpret_cast<const unsigned char*>(bytes.data()); }
unsigned char* raw(std::string& bytes) { return reinterpret_cast<unsigned char*>(bytes.data()); }

std::string nonce_of(uint64_t number) { return ByteWriter().u32(0).u64(number).take(); }

std::string hmac(std::string_view key, std::string_view data) {
  std::string out(32, '\0');
  unsigned size = 0;
  const auto* done =
      HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), raw(data), data.size(), raw(out), &size);
  UCCP_CHECK(done != nullptr && size == out.size(), "HMAC-SHA-256 is available");
  return out;
}

void check(int code) { UCCP_CHECK(code == 1, "AES-256-GCM is available"); }

}  // namespace

void wipe(std::string& secret) {
  OPENSSL_cleanse(secret.data(), secret.size());
  secret.clear();
}

SecretKey::~SecretKey() { OPENSSL_cleanse(bytes_.data(), bytes_.size()); }

SecretKey SecretKey::make(Random& random) {
  SecretKey key;
  for (size_t i = 0; i < kBytes; i += 8) {
    uint64_t word = random.next();
    for (size_t j = 0; j < 8; ++j, word >>= 8) key.bytes_[i + j] = static_cast<uint8_t>(word);
  }
  return key;
}

Result<SecretKey> SecretKey::parse(std::string_view text) {
  const auto is_space = [](char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; };
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  auto bytes = from_hex(text);
  if (!bytes || bytes->size() != kBytes) {
    return fail(Code::kInvalid, "KEY_INVALID",
                "a key is 64 lower-case hexadecimal digits, such as 'openssl rand -hex 32' writes");
  }
  auto key = from_bytes(*bytes);
  wipe(*bytes);
  return key;
}

Result<SecretKey> SecretKey::from_bytes(std::string_view bytes) {
  if (bytes.size() != kBytes) return fail(Code::kInvalid, "KEY_INVALID", "a key has 32 bytes");
  SecretKey key;
  std::copy(bytes.begin(), bytes.end(), key.bytes_.begin());
  return key;
}

std::string SecretKey::text() const { return to_hex(bytes()) + "\n"; }

SecretKey SecretKey::derive(std::string_view salt, std::string_view purpose) const {
  // One block of output is one key.
  std::string extracted = hmac(salt, bytes());
  std::string expanded = hmac(extracted, std::string(purpose) + '\x01');
  SecretKey key;
  std::copy(expanded.begin(), expanded.end(), key.bytes_.begin());
  wipe(extracted);
  wipe(expanded);
  return key;
}

std::string SecretKey::id() const { return sha256("uccp key id " + std::string(bytes())).substr(0, 8); }

std::string Aead::seal(uint64_t number, std::string_view bound, std::string_view plain) const {
  const Cipher context(EVP_CIPHER_CTX_new());
  const std::string nonce = nonce_of(number);
  static_assert(kNonceBytes == 12, "the nonce that GCM takes as it is");
  check(EVP_EncryptInit_ex(context.get(), EVP_aes_256_gcm(), nullptr, raw(key_.bytes()), raw(nonce)));
  int size = 0;
  check(EVP_EncryptUpdate(context.get(), nullptr, &size, raw(bound), static_cast<int>(bound.size())));
  std::string out(plain.size() + kTagBytes, '\0');
  check(EVP_EncryptUpdate(context.get(), raw(out), &size, raw(plain), static_cast<int>(plain.size())));
  check(EVP_EncryptFinal_ex(context.get(), raw(out) + size, &size));
  check(EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_GET_TAG, kTagBytes, out.data() + plain.size()));
  return out;
}

std::optional<std::string> Aead::open(uint64_t number, std::string_view bound, std::string_view sealed) const {
  if (sealed.size() < kTagBytes) return std::nullopt;
  const std::string_view cipher = sealed.substr(0, sealed.size() - kTagBytes);
  std::string tag(sealed.substr(cipher.size()));
  const Cipher context(EVP_CIPHER_CTX_new());
  const std::string nonce = nonce_of(number);
  check(EVP_DecryptInit_ex(context.get(), EVP_aes_256_gcm(), nullptr, raw(key_.bytes()), raw(nonce)));
  int size = 0;
  check(EVP_DecryptUpdate(context.get(), nullptr, &size, raw(bound), static_cast<int>(bound.size())));
  std::string out(cipher.size(), '\0');
  check(EVP_DecryptUpdate(context.get(), raw(out), &size, raw(cipher), static_cast<int>(cipher.size())));
  check(EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_SET_TAG, kTagBytes, tag.data()));
  std::string rest(kTagBytes, '\0');
  if (EVP_DecryptFinal_ex(context.get(), raw(rest), &size) != 1) return std::nullopt;
  return out;
}

}  // namespace uccp
