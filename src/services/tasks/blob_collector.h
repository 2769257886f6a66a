// Removes the blobs of this node that no task, function or object refers to any more.
//
// A blob is referred to by the inputs, artifacts and logs of a task as long as the task has a record, ended or not.
// Each node looks at its own copies, by its own state: what is committed can be read everywhere, so all come to the
// same result without a word. The grace is at least as long as a worker may be away and still report an outcome: the
// files that it names are stored before it is. Thread: start() on any; the work is done on `io`, until that is stopped.
#pragma once

#include <functional>
#include <string_view>

#include "base/executor.h"
#include "base/metrics.h"
#include "machine/ports.h"
#include "services/objects/collected_blobs.h"
#include "services/work_types.h"

namespace uccp::tasks {

class BlobCollector {
 public:
  // Everything must live until `io` is stopped.
  BlobCollector(Executor& io, machine::Reader& reader, objects::CollectedBlobs& blobs, MetricsRegistry& metrics,
                int64_t interval_ms)
      : io_(io), reader_(reader), blobs_(blobs), metrics_(metrics), interval_ms_(interval_ms) {}

  void start();

 private:
  void schedule();
  void round(const machine::GroupView& view);

  Executor& io_;
  machine::Reader& reader_;
  objects::CollectedBlobs& blobs_;
  MetricsRegistry& metrics_;
  const int64_t interval_ms_;
};

// All blobs that a task refers to.
void visit_blobs(const internal::v1::TaskRow& row, const std::function<void(std::string_view sha256)>& visit);

}  // namespace uccp::tasks
