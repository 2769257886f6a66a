// Content by hash: logs, artifacts, large specs and results.
//
// The port, and its implementation in a directory. Invariants: a blob is named by the SHA-256 of its content, so
// putting the same content twice, also at the same time, is one blob; a blob that can be seen is whole and, with sync
// on, on stable storage; a writer that is dropped leaves nothing. Nothing here counts references: whoever removes blobs
// makes sure that nobody is about to refer to one. Thread: a store is callable from any thread, a writer from one at a
// time; all calls block on disk.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/file_system.h"
#include "base/status.h"

namespace uccp::objects {

struct BlobInfo {
  std::string sha256;  // 64 lower-case hexadecimal digits
  uint64_t size = 0;

  bool operator==(const BlobInfo&) const = default;
};

// One blob on its way in.
class BlobWriter {
 public:
  virtual ~BlobWriter() = default;
  // Errors: exhausted NO_SPACE, unavailable IO_ERROR. After an error the writer is useless.
  virtual Status append(std::string_view data) = 0;
  // Stores the content. With `expected_sha256` not empty it must have that digest, else corruption BLOB_DIGEST_MISMATCH
  // and nothing is stored. Call at most once.
  virtual Result<BlobInfo> finish(std::string_view expected_sha256 = {}) = 0;
};

class BlobStore {
 public:
  virtual ~BlobStore() = default;
  virtual Result<std::unique_ptr<BlobWriter>> begin_put() = 0;
  // Errors: not_found BLOB_NOT_FOUND; invalid BLOB_ID_INVALID for anything but 64 lower-case hexadecimal digits.
  virtual Result<BlobInfo> stat(std::string_view sha256) = 0;
  // Reads up to `size` bytes from `offset`; fewer only at the end. Errors: as stat(); invalid BLOB_OFFSET_INVALID
  // behind the end.
  virtual Result<std::string> read(std::string_view sha256, uint64_t offset, size_t size) = 0;
  virtual Result<bool> exists(std::string_view sha256) = 0;
  // Removing what does not exist is fine.
  virtual Status remove(std::string_view sha256) = 0;
  // Ids in order, those behind `after`, at most `count_max`.
  virtual Result<std::vector<std::string>> list(std::string_view after, size_t count_max) = 0;
  // Reads the whole blob. Errors: as stat(); corruption BLOB_DIGEST_MISMATCH.
  virtual Status verify(std::string_view sha256) = 0;

  // begin_put, append, finish.
  Result<BlobInfo> put(std::string_view content);
};

bool is_blob_id(std::string_view text);

struct DirectoryBlobStoreOptions {
  // False for caches, whose content can be fetched again.
  bool sync = true;
};

// <directory>/<aa>/<bb>/<aabb…64 digits>, and <directory>/tmp for what is being written.
class DirectoryBlobStore final : public BlobStore {
 public:
  // Makes the directory and removes what an earlier process left unfinished. One store a directory. `files` must
  // outlive the store.
  static Result<std::unique_ptr<DirectoryBlobStore>> open(FileSystem& files, std::string directory,
                                                          DirectoryBlobStoreOptions options = {});

  Result<std::unique_ptr<BlobWriter>> begin_put() override;
  Result<BlobInfo> stat(std::string_view sha256) override;
  Result<std::string> read(std::string_view sha256, uint64_t offset, size_t size) override;
  Result<bool> exists(std::string_view sha256) override;
  Status remove(std::string_view sha256) override;
  Result<std::vector<std::string>> list(std::string_view after, size_t count_max) override;
  Status verify(std::string_view sha256) override;

  // Where the content of a blob is, whether it exists or not. Requires is_blob_id(sha256).
  std::string path_of(std::string_view sha256) const;

 private:
  class Writer;
  DirectoryBlobStore(FileSystem& files, std::string directory, DirectoryBlobStoreOptions options);
  Status make_parent(std::string_view sha256);
  Result<std::unique_ptr<File>> open_blob(std::string_view sha256);

  FileSystem& files_;
  const std::string directory_;
  const DirectoryBlobStoreOptions options_;
};

}  // namespace uccp::objects
