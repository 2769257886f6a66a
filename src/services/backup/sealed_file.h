// A file of a backup: pieces, each encrypted and bound to its place, so that a file that was cut, changed, put together
// from others, or sealed with another key is noticed. docs/formats/backup.md is the format.
// One thread at a time; calls block.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/aead.h"
#include "base/file_system.h"
#include "base/hash.h"

namespace uccp::backup {

enum class SealedKind : uint8_t { kManifest = 1, kGroup = 2, kBlob = 3 };

// What a finished file is known by.
struct FileSum {
  uint64_t size = 0;
  std::string sha256;  // 64 hexadecimal digits

  bool operator==(const FileSum&) const = default;
};

class SealedWriter {
 public:
  // Creates the file, which must not exist. `random` must be the system's.
  static Result<std::unique_ptr<SealedWriter>> create(FileSystem& files, const std::string& path, SealedKind kind,
                                                      const SecretKey& key, Random& random);
  // Requires a piece of at most kPieceBytesMax.
  Status add(std::string_view piece);
  // On stable storage after return.
  Result<FileSum> finish();

 private:
  SealedWriter(std::unique_ptr<File> file, std::string bound, SecretKey key)
      : file_(std::move(file)), bound_(std::move(bound)), aead_(key) {}
  Status write(std::string_view bytes);
  Status write_piece(std::string_view piece, bool last);

  const std::unique_ptr<File> file_;
  const std::string bound_;  // what every piece is bound to
  const Aead aead_;
  uint64_t number_ = 0;
  uint64_t size_ = 0;
  Sha256 hash_;
};

class SealedReader {
 public:
  // Errors: corruption BACKUP_DAMAGED; failed_precondition BACKUP_KEY_WRONG, BACKUP_VERSION_UNSUPPORTED; not_found.
  static Result<std::unique_ptr<SealedReader>> open(FileSystem& files, const std::string& path, SealedKind kind,
                                                    const SecretKey& key);
  // The next piece; none at the end, and then the file was whole. Errors: corruption BACKUP_DAMAGED.
  Result<std::optional<std::string>> next();
  // Of what was read; of the whole file after its end.
  FileSum sum();

 private:
  SealedReader(std::string path, std::unique_ptr<File> file, std::string bound, SecretKey key)
      : path_(std::move(path)), file_(std::move(file)), bound_(std::move(bound)), aead_(key) {}

  const std::string path_;
  const std::unique_ptr<File> file_;
  const std::string bound_;
  const Aead aead_;
  uint64_t number_ = 0;
  uint64_t offset_ = 0;
  bool ended_ = false;
  Sha256 hash_;
};

inline constexpr size_t kPieceBytesMax = 512u << 20;

}  // namespace uccp::backup
