// The data keys of a data directory: what files are encrypted with. They lie in one file, each wrapped by the master
// key, which is kept elsewhere. docs/formats/encryption.md is the format.
//
// A new file takes the newest key and says which; older ones stay for the files that name them. Changing the master key
// wraps the keys again and touches nothing else. Immutable once built; usable from any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/aead.h"
#include "base/clock.h"

namespace uccp::storage {

struct DataKey {
  std::string id;  // 8 bytes
  int64_t created_us = 0;
  SecretKey key;
};

class KeyRing {
 public:
  static constexpr size_t kIdBytes = 8;
  static constexpr size_t kKeysMax = 1000;

  // `random` must be the system's.
  static DataKey make_key(Random& random, WallTime now);

  explicit KeyRing(std::vector<DataKey> keys) : keys_(std::move(keys)) {}
  // Errors: failed_precondition MASTER_KEY_WRONG, KEYS_VERSION_UNSUPPORTED; corruption KEYS_DAMAGED.
  static Result<KeyRing> decode(std::string_view bytes, const SecretKey& master);
  std::string encode(const SecretKey& master) const;

  // Requires a key.
  const DataKey& newest() const { return keys_.back(); }
  // None if there is no such key.
  const DataKey* find(std::string_view id) const;
  const std::vector<DataKey>& keys() const { return keys_; }

 private:
  std::vector<DataKey> keys_;  // oldest first
};

}  // namespace uccp::storage
