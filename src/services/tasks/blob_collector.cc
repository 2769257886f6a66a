#include "services/tasks/blob_collector.h"

#include <algorithm>
#include <vector>

#include "base/hash.h"
#include "base/log.h"
#include "services/function_types.h"
#include "services/object_types.h"

namespace uccp::tasks {
namespace {

// A node that does not know what is committed collects nothing.
constexpr int64_t kStaleMsMax = 5'000;

}  // namespace

void visit_blobs(const internal::v1::TaskRow& row, const std::function<void(std::string_view)>& visit) {
  for (const v1::Input& input : row.task().inputs()) {
    if (input.has_blob()) visit(input.blob().sha256());
  }
  for (const v1::Artifact& artifact : row.task().artifacts()) visit(artifact.sha256());
  for (const internal::v1::AttemptLog& log : row.logs()) {
    for (const internal::v1::LogBlob& blob : log.blobs()) visit(blob.blob().sha256());
  }
}

void BlobCollector::start() { schedule(); }

void BlobCollector::schedule() {
  io_.post_after(interval_ms_, [this] {
    reader_.read(kWorkGroup, machine::ReadLevel::bounded(kStaleMsMax), [this](Result<machine::GroupView> view) {
      io_.post([this, view = std::move(view)] {
        if (view) round(*view);
        schedule();
      });
    });
  });
}

// References are kept as hashes of eight bytes: that two blobs have the same keeps one of them longer, no more.
void BlobCollector::round(const machine::GroupView& view) {
  std::vector<uint64_t> referenced;
  work::kTasks.scan_all(view, [&](const machine::Scope&, std::string_view, const internal::v1::TaskRow& row) {
    visit_blobs(row, [&](std::string_view id) { referenced.push_back(hash64(id)); });
    return true;
  });
  work::kElements.scan_all(view, [&](const machine::Scope&, std::string_view, const internal::v1::TaskRow& row) {
    visit_blobs(row, [&](std::string_view id) { referenced.push_back(hash64(id)); });
    return true;
  });
  functions::kVersions.scan_all(view,
                                [&](const machine::Scope&, std::string_view, const internal::v1::FunctionRow& row) {
                                  referenced.push_back(hash64(row.bundle().sha256()));
                                  return true;
                                });
  const auto object = [&](const machine::Scope&, std::string_view, const internal::v1::ObjectRow& row) {
    if (!objectstores::is_over(row, view.machine_time_ms())) referenced.push_back(hash64(row.blob().sha256()));
    return true;
  };
  objectstores::kObjects.scan_all(view, object);
  objectstores::kOldVersions.scan_all(view, object);
  std::ranges::sort(referenced);
  const auto collection =
      blobs_.collect([&](std::string_view id) { return std::ranges::binary_search(referenced, hash64(id)); });
  if (!collection) return log::warn("blobs are not collected", {{"error", collection.error().message()}});
  metrics_.gauge("uccp_blobs_stored", "Blobs on this node")
      .set(static_cast<double>(collection->stored - collection->removed));
  metrics_.gauge("uccp_blobs_unreferenced", "Blobs on this node that go when their grace is over")
      .set(static_cast<double>(collection->unreferenced));
  if (collection->removed == 0) return;
  metrics_.counter("uccp_blobs_removed_total", "Blobs removed because nothing referred to them")
      .add(collection->removed);
  log::info("removed blobs that nothing refers to",
            {{"blobs", collection->removed}, {"bytes", collection->bytes_removed}});
}

}  // namespace uccp::tasks
