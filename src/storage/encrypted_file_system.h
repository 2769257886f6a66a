// EncryptedFileSystem: a FileSystem whose files are encrypted on the one below. Whoever writes or reads through it
// notices nothing. docs/formats/encryption.md is the format.
//
// Files that are not encrypted, from before encryption was turned on, are read and written as they are. A region that
// was allocated and not written reads as zeros, as below. A crash leaves what it would leave below: a block that was
// durable stays so when more is written behind it in the same sector. Each file belongs to one thread at a time.
#pragma once

#include "base/file_system.h"
#include "base/random.h"
#include "storage/key_ring.h"

namespace uccp::storage {

class EncryptedFileSystem final : public FileSystem {
 public:
  // `files` and `keys` must outlive it. `random` must be the system's.
  EncryptedFileSystem(FileSystem& files, const KeyRing& keys, Random& random)
      : files_(files), keys_(keys), random_(random) {}

  // Further errors: failed_precondition DATA_KEY_MISSING.
  Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override;
  Result<std::vector<std::string>> list(const std::string& directory) override { return files_.list(directory); }
  Result<bool> exists(const std::string& path) override { return files_.exists(path); }
  Status make_directories(const std::string& path) override { return files_.make_directories(path); }
  Status remove(const std::string& path) override { return files_.remove(path); }
  Status rename(const std::string& from, const std::string& to) override { return files_.rename(from, to); }
  Status hard_link(const std::string& from, const std::string& to) override { return files_.hard_link(from, to); }
  Status sync_directory(const std::string& path) override { return files_.sync_directory(path); }
  Result<uint64_t> free_bytes(const std::string& path) override { return files_.free_bytes(path); }

 private:
  FileSystem& files_;
  const KeyRing& keys_;
  Random& random_;
};

}  // namespace uccp::storage
