#include "agent/input_cache.h"

#include "base/check.h"

namespace uccp::agent {
namespace {
constexpr size_t kListPage = 1000;
}

Result<InputCache> InputCache::open(FileSystem& files, const std::string& directory, uint64_t bytes_max) {
  InputCache cache;
  UCCP_TRY(cache.store_, objects::DirectoryBlobStore::open(files, directory, {.sync = false}));
  cache.bytes_max_ = bytes_max;
  for (std::string after;;) {
    UCCP_TRY(auto ids, cache.store_->list(after, kListPage));
    if (ids.empty()) return cache;
    after = ids.back();
    for (const std::string& id : ids) {
      // It was not synced: after a crash of the machine the name may be there and the bytes not.
      if (cache.store_->verify(id).is_ok()) {
        UCCP_RETURN_IF_ERROR(cache.added(id));
      } else {
        UCCP_RETURN_IF_ERROR(cache.store_->remove(id));
      }
    }
  }
}

Status InputCache::added(const std::string& sha256) {
  if (entries_.contains(sha256)) return {};
  UCCP_TRY(auto info, store_->stat(sha256));
  entries_[sha256] = {.size = info.size, .use = uses_.insert(uses_.end(), sha256)};
  bytes_ += info.size;
  evict();
  return {};
}

void InputCache::pin(const std::string& sha256) {
  Entry& entry = entries_.at(sha256);
  entry.pins += 1;
  uses_.splice(uses_.end(), uses_, entry.use);
}

void InputCache::unpin(const std::string& sha256) {
  const auto found = entries_.find(sha256);
  UCCP_CHECK(found != entries_.end() && found->second.pins > 0, "only what is pinned is unpinned");
  found->second.pins -= 1;
  evict();
}

void InputCache::evict() {
  for (auto use = uses_.begin(); bytes_ > bytes_max_ && use != uses_.end();) {
    const Entry& entry = entries_.at(*use);
    // The newest may be what is just being fetched for somebody.
    if (entry.pins > 0 || std::next(use) == uses_.end()) {
      ++use;
      continue;
    }
    (void)store_->remove(*use);
    bytes_ -= entry.size;
    entries_.erase(*use);
    use = uses_.erase(use);
  }
}

}  // namespace uccp::agent
