#include "services/objects/collected_blobs.h"

namespace uccp::objects {
namespace {

constexpr size_t kListed = 1000;

}  // namespace

class CollectedBlobs::Writer final : public BlobWriter {
 public:
  Writer(CollectedBlobs& store, std::unique_ptr<BlobWriter> writer) : store_(store), writer_(std::move(writer)) {}
  Status append(std::string_view data) override { return writer_->append(data); }
  Result<BlobInfo> finish(std::string_view expected_sha256) override {
    if (expected_sha256.empty()) return store_.finish_unnamed(*writer_);
    // Before as well: if the same content is there already, it must not go between the two.
    store_.touch(expected_sha256);
    auto info = writer_->finish(expected_sha256);
    if (info) store_.touch(info->sha256);
    return info;
  }

 private:
  CollectedBlobs& store_;
  std::unique_ptr<BlobWriter> writer_;
};

// Which blob it is shows only at the end: nothing is removed until then.
Result<BlobInfo> CollectedBlobs::finish_unnamed(BlobWriter& writer) {
  std::lock_guard lock(mutex_);
  auto info = writer.finish({});
  if (info) unreferenced_.erase(info->sha256);
  return info;
}

void CollectedBlobs::touch(std::string_view sha256) {
  std::lock_guard lock(mutex_);
  const auto known = unreferenced_.find(sha256);
  if (known != unreferenced_.end()) unreferenced_.erase(known);
}

Result<std::unique_ptr<BlobWriter>> CollectedBlobs::begin_put() {
  UCCP_TRY(auto writer, blobs_.begin_put());
  return std::make_unique<Writer>(*this, std::move(writer));
}

// First touched, then looked at: what is there afterwards stays for the grace.
Result<BlobInfo> CollectedBlobs::stat(std::string_view sha256) {
  touch(sha256);
  return blobs_.stat(sha256);
}

Result<std::string> CollectedBlobs::read(std::string_view sha256, uint64_t offset, size_t size) {
  touch(sha256);
  return blobs_.read(sha256, offset, size);
}

Result<bool> CollectedBlobs::exists(std::string_view sha256) {
  touch(sha256);
  return blobs_.exists(sha256);
}

Status CollectedBlobs::remove_if_due(const std::string& sha256, BootTime now, Collection& collection) {
  std::lock_guard lock(mutex_);
  const auto [known, is_new] = unreferenced_.try_emplace(sha256, now);
  if (is_new || now.ms_since(known->second) < grace_ms_) {
    ++collection.unreferenced;
    return {};
  }
  const auto info = blobs_.stat(sha256);
  UCCP_RETURN_IF_ERROR(blobs_.remove(sha256));
  unreferenced_.erase(known);
  ++collection.removed;
  if (info) collection.bytes_removed += info->size;
  return {};
}

Result<CollectedBlobs::Collection> CollectedBlobs::collect(const IsReferenced& is_referenced) {
  Collection collection;
  const BootTime now = clock_.boot();
  std::string after;
  for (;;) {
    UCCP_TRY(const auto ids, blobs_.list(after, kListed));
    if (ids.empty()) return collection;
    after = ids.back();
    for (const std::string& id : ids) {
      ++collection.stored;
      if (is_referenced(id)) touch(id);
      else UCCP_RETURN_IF_ERROR(remove_if_due(id, now, collection));
    }
  }
}

}  // namespace uccp::objects
