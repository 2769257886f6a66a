#include "base/disk_cipher.h"

#include <openssl/evp.h>

#include <algorithm>

#include "base/bytes.h"
#include "base/check.h"
#include "base/openssl_owners.h"

namespace uccp {
namespace {

constexpr size_t kNonceBytes = 8;

using openssl::Cipher;

const unsigned char* raw(std::string_view bytes) { return reinterpret_cast<const unsigned char*>(bytes.data()); }
unsigned char* raw(char* bytes) { return reinterpret_cast<unsigned char*>(bytes); }
void check(int code) { UCCP_CHECK(code == 1, "AES-256 is available"); }

}  // namespace

struct XtsCipher::Contexts {
  Cipher encrypt{EVP_CIPHER_CTX_new()};
  Cipher decrypt{EVP_CIPHER_CTX_new()};
};

XtsCipher::XtsCipher(const SecretKey& key) : contexts_(std::make_unique<Contexts>()) {
  const std::string both =
      std::string(key.derive("data", "uccp xts").bytes()) + std::string(key.derive("tweak", "uccp xts").bytes());
  const auto type = EVP_aes_256_xts();
  check(EVP_EncryptInit_ex(contexts_->encrypt.get(), type, nullptr, raw(both), nullptr));
  check(EVP_DecryptInit_ex(contexts_->decrypt.get(), type, nullptr, raw(both), nullptr));
}
XtsCipher::~XtsCipher() = default;
XtsCipher::XtsCipher(XtsCipher&&) noexcept = default;

void XtsCipher::run(void* context, uint64_t unit, char* data, size_t size) {
  auto* const cipher = static_cast<EVP_CIPHER_CTX*>(context);
  UCCP_CHECK(size % kBlockBytes == 0, "whole blocks are encrypted");
  for (size_t at = 0; at < size; at += kUnitBytes, ++unit) {
    // The number of the unit as IEEE 1619 has it: little endian.
    unsigned char tweak[kBlockBytes] = {};
    for (size_t i = 0; i < sizeof unit; ++i) tweak[i] = static_cast<unsigned char>(unit >> (8 * i));
    check(EVP_CipherInit_ex(cipher, nullptr, nullptr, nullptr, tweak, -1));
    int written = 0;
    const auto length = static_cast<int>(std::min(kUnitBytes, size - at));
    check(EVP_CipherUpdate(cipher, raw(data + at), &written, raw(data + at), length));
  }
}

void XtsCipher::encrypt(uint64_t unit, char* data, size_t size) { run(contexts_->encrypt.get(), unit, data, size); }
void XtsCipher::decrypt(uint64_t unit, char* data, size_t size) { run(contexts_->decrypt.get(), unit, data, size); }

CtrCipher::CtrCipher(const SecretKey& key, std::string_view nonce) : key_(key), nonce_(nonce) {
  UCCP_CHECK(nonce.size() == kNonceBytes, "a nonce has 8 bytes");
}

void CtrCipher::apply(uint64_t offset, char* data, size_t size) const {
  constexpr size_t kBlock = XtsCipher::kBlockBytes;
  const Cipher context(EVP_CIPHER_CTX_new());
  const std::string counter = ByteWriter().raw(nonce_).u64(offset / kBlock).take();
  check(EVP_EncryptInit_ex(context.get(), EVP_aes_256_ctr(), nullptr, raw(key_.bytes()), raw(counter)));
  int written = 0;
  // To the middle of a block.
  unsigned char skipped[kBlock] = {};
  const auto skip = static_cast<int>(offset % kBlock);
  if (skip > 0) check(EVP_EncryptUpdate(context.get(), skipped, &written, skipped, skip));
  check(EVP_EncryptUpdate(context.get(), raw(data), &written, raw(data), static_cast<int>(size)));
}

}  // namespace uccp
