// Inputs by hash, kept on the worker so that attempts with equal inputs fetch them once.
//
// Invariants: what is in use is not evicted; otherwise the least recently used goes first when the limit is passed. The
// content is checked against its hash when it is fetched. Nothing is synced: it can be fetched again.
// Thread: one; calls touch the disk shortly.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>

#include "services/objects/blob_store.h"

namespace uccp::agent {

class InputCache {
 public:
  // Forgets what an earlier agent cached beyond the limit. `files` must outlive the cache.
  static Result<InputCache> open(FileSystem& files, const std::string& directory, uint64_t bytes_max);

  bool has(const std::string& sha256) const { return entries_.contains(sha256); }
  std::string path_of(const std::string& sha256) const { return store_->path_of(sha256); }
  Result<std::unique_ptr<objects::BlobWriter>> begin_put() { return store_->begin_put(); }
  // The content was put. Evicts others if need be. Errors: as BlobStore::stat().
  Status added(const std::string& sha256);
  // Keeps an entry until unpin(). Requires: has(sha256).
  void pin(const std::string& sha256);
  void unpin(const std::string& sha256);
  uint64_t bytes() const { return bytes_; }

 private:
  InputCache() = default;
  struct Entry {
    uint64_t size = 0;
    size_t pins = 0;
    std::list<std::string>::iterator use;
  };
  void evict();

  std::unique_ptr<objects::DirectoryBlobStore> store_;
  uint64_t bytes_max_ = 0;
  uint64_t bytes_ = 0;
  std::unordered_map<std::string, Entry> entries_;
  std::list<std::string> uses_;  // least recent first
};

}  // namespace uccp::agent
