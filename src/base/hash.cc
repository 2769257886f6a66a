#include "base/hash.h"

#include <openssl/evp.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>

#include "base/bytes.h"
#include "base/check.h"

namespace uccp {

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  UCCP_CHECK(EVP_DigestInit_ex(static_cast<EVP_MD_CTX*>(context_), EVP_sha256(), nullptr) == 1, "SHA-256 is available");
}

Sha256::~Sha256() { EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(context_)); }

void Sha256::update(std::string_view data) {
  EVP_DigestUpdate(static_cast<EVP_MD_CTX*>(context_), data.data(), data.size());
}

std::string Sha256::finish() {
  std::string out(32, '\0');
  unsigned size = 0;
  EVP_DigestFinal_ex(static_cast<EVP_MD_CTX*>(context_), reinterpret_cast<unsigned char*>(out.data()), &size);
  return out;
}

std::string sha256(std::string_view data) {
  Sha256 hash;
  hash.update(data);
  return hash.finish();
}

namespace {

XXH128_hash_t pair_hash(std::string_view key, std::string_view value) {
  // The key's length goes in as the seed, so that moving a byte from key to value changes the hash.
  const size_t size = key.size() + value.size();
  if (char small[1024]; size <= sizeof small) {
    std::copy(value.begin(), value.end(), std::copy(key.begin(), key.end(), small));
    return XXH3_128bits_withSeed(small, size, key.size());
  }
  std::string joined;
  joined.reserve(size);
  joined.append(key).append(value);
  return XXH3_128bits_withSeed(joined.data(), joined.size(), key.size());
}

}  // namespace

void Digest::add(std::string_view key, std::string_view value) {
  const XXH128_hash_t h = pair_hash(key, value);
  low += h.low64;
  high += h.high64 + (low < h.low64 ? 1 : 0);
}

void Digest::remove(std::string_view key, std::string_view value) {
  const XXH128_hash_t h = pair_hash(key, value);
  const uint64_t borrow = low < h.low64 ? 1 : 0;
  low -= h.low64;
  high -= h.high64 + borrow;
}

std::string Digest::to_string() const { return to_hex(ByteWriter().u64(high).u64(low).data()); }

uint64_t hash64(std::string_view data) { return XXH3_64bits(data.data(), data.size()); }

}  // namespace uccp
