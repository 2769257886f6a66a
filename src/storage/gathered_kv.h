// GatheredKv: keeps the latest batches in memory and writes them to the Kv below many at a time.
//
// Rows of hot things are written again and again, and what is written once more before it goes below is never written
// there: a lock that is taken and released leaves half of its rows. Batches go below in their order, as one, so that
// after a crash the map below is what it was after one of them, none earlier than the last flush. What is lost by a
// crash besides comes from the replicated log, as ever. Thread: as any Kv, but flush() and checkpoint() may run beside
// the other calls.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <string>

#include "storage/kv.h"

namespace uccp::storage {

class GatheredKv final : public Kv {
 public:
  struct Options {
    // With so many batches, or so many bytes, all go below. Reading looks through each of them.
    size_t batches_max = 16;
    size_t bytes_max = 1u << 20;
  };

  // `below` must outlive the Kv and be written by nobody else.
  explicit GatheredKv(Kv& below) : GatheredKv(below, Options()) {}
  GatheredKv(Kv& below, Options options) : below_(below), options_(options) {}
  ~GatheredKv() override;  // writes what is left below

  Status write(const KvBatch& batch) override;
  Status erase_range(std::string_view from, std::string_view to) override;
  std::shared_ptr<const KvView> view() override;
  Status flush() override;
  Status checkpoint(const std::string& directory) override;
  uint64_t size_bytes() override;

 private:
  class Layer;
  class View;
  class Iterator;

  // Under the mutex.
  Status write_below();

  Kv& below_;
  const Options options_;
  std::mutex mutex_;  // of what follows, and of writing below
  std::shared_ptr<const Layer> newest_;
  size_t batches_ = 0;
  size_t bytes_ = 0;
  std::shared_ptr<const KvView> below_view_;  // null: to be made
};

}  // namespace uccp::storage
