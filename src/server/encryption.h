// Encryption of a data directory: its master key, its data keys, and what is opened with them. docs/encryption.md.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/file_system.h"
#include "base/random.h"
#include "server/config.h"
#include "storage/encrypted_file_system.h"
#include "storage/rocksdb/rocks_encryption.h"

namespace uccp::server {

class DataEncryption {
 public:
  // Off without encryption_key_file. The first start with it makes a data key and encrypts the state that is there; a
  // start after `encryption_key_age` makes a further data key. Everything must outlive the result. Errors: invalid
  // KEY_INVALID; failed_precondition ENCRYPTION_KEY_NEEDED, MASTER_KEY_WRONG; corruption KEYS_DAMAGED.
  static Result<std::unique_ptr<DataEncryption>> open(FileSystem& files, const Config& config,
                                                      const std::string& data_dir, const Clock& clock, Random& random);

  bool on() const { return ring_.has_value(); }
  // For the log and the blobs.
  FileSystem& files() { return encrypted_ ? static_cast<FileSystem&>(*encrypted_) : files_; }
  storage::RocksEncryption rocks() const { return {on() ? &*ring_ : nullptr, &random_}; }
  std::string report() const;

 private:
  DataEncryption(FileSystem& files, Random& random) : files_(files), random_(random) {}

  FileSystem& files_;
  Random& random_;
  std::optional<storage::KeyRing> ring_;
  std::unique_ptr<storage::EncryptedFileSystem> encrypted_;
};

// `uccp keys rotate`: adds a data key, and with `new_key_file` wraps all of them by that master key from now on. The
// server must not run. Answers what it did, as text.
Result<std::string> rotate_keys(FileSystem& files, const Config& config, const std::string& data_dir,
                                const std::string& new_key_file, const Clock& clock, Random& random);

}  // namespace uccp::server
