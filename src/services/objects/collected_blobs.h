// A blob store from which blobs go that nothing refers to any more.
//
// What refers to blobs is known to others: they say so for each collection. A blob goes when every collection for the
// whole grace found it unreferenced and nothing put, read or asked for it meanwhile. So there is time between storing a
// blob and committing what refers to it, and who is about to refer to an older one asks for it first: that begins the
// grace anew. The ages are kept in memory: after a restart every grace begins anew as well, which only keeps blobs
// longer.
//
// Invariant: between a successful put(), stat(), exists() or read() of a blob and its removal lies the whole grace.
// Thread: any; collect() on one at a time. All but touch() blocks on disk.
#pragma once

#include <compare>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "services/objects/blob_store.h"

namespace uccp::objects {

class CollectedBlobs final : public BlobStore {
 public:
  // `blobs` and `clock` must outlive the object.
  CollectedBlobs(BlobStore& blobs, const Clock& clock, int64_t grace_ms)
      : blobs_(blobs), clock_(clock), grace_ms_(grace_ms) {}

  Result<std::unique_ptr<BlobWriter>> begin_put() override;
  Result<BlobInfo> stat(std::string_view sha256) override;
  Result<std::string> read(std::string_view sha256, uint64_t offset, size_t size) override;
  Result<bool> exists(std::string_view sha256) override;
  Status remove(std::string_view sha256) override { return blobs_.remove(sha256); }
  Result<std::vector<std::string>> list(std::string_view after, size_t count_max) override {
    return blobs_.list(after, count_max);
  }
  Status verify(std::string_view sha256) override { return blobs_.verify(sha256); }

  struct Collection {
    size_t stored = 0;        // blobs that there are, those removed included
    size_t unreferenced = 0;  // of them, those that wait for the end of their grace
    size_t removed = 0;
    uint64_t bytes_removed = 0;
  };
  using IsReferenced = std::function<bool(std::string_view sha256)>;
  // Looks at all blobs that `is_referenced` does not hold, and removes those whose grace is over. `is_referenced` has
  // to know what was committed before the call.
  Result<Collection> collect(const IsReferenced& is_referenced);

 private:
  class Writer;
  void touch(std::string_view sha256);
  Result<BlobInfo> finish_unnamed(BlobWriter& writer);
  Status remove_if_due(const std::string& sha256, BootTime now, Collection& collection);

  BlobStore& blobs_;
  const Clock& clock_;
  const int64_t grace_ms_;
  std::mutex mutex_;  // also held while a blob is removed, so that nobody asks for it in between
  std::map<std::string, BootTime, std::less<>> unreferenced_;  // since when
};

}  // namespace uccp::objects
