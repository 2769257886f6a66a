// Hashes with a fixed meaning: content addresses and the state digest.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

namespace uccp {

// 32 raw bytes of SHA-256.
std::string sha256(std::string_view data);

// SHA-256 of data that comes in pieces.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void update(std::string_view data);
  // 32 raw bytes. The object must not be used afterwards.
  std::string finish();

 private:
  void* context_;
};

// An additive 128-bit digest of a set of (key, value) pairs: adding and removing pairs in any order gives the same sum,
// so a table's digest is kept up to date without reading the table. Not collision resistant against an adversary.
struct Digest {
  uint64_t high = 0;
  uint64_t low = 0;

  auto operator<=>(const Digest&) const = default;
  void add(std::string_view key, std::string_view value);
  void remove(std::string_view key, std::string_view value);
  std::string to_string() const;  // 32 hex digits
};

// 64-bit hash for tables and sharding; the value is part of stored formats (XXH3).
uint64_t hash64(std::string_view data);

}  // namespace uccp
