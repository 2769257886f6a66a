// DurableTable: an ordered byte map on stable storage, which TableLogStore keeps a log in.
//
// One thread at a time. After an error of commit() nothing of the batch is there, or all of it; only `exhausted`
// NO_SPACE says that nothing is and that it may be tried again.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace uccp::storage {

struct TableBatch {
  struct Range {
    std::string from, to;  // keys in [from, to)
  };
  // Ranges are erased before anything is put.
  std::vector<Range> erased;
  std::vector<std::pair<std::string, std::string>> puts;

  bool empty() const { return erased.empty() && puts.empty(); }
};

class DurableTable {
 public:
  virtual ~DurableTable() = default;
  // Atomic, and on stable storage after return.
  virtual Status commit(const TableBatch& batch) = 0;
  // Calls `row` with the rows of [from, to) in the order of their keys, until it returns false. Key and value hold
  // during the call only. Errors: corruption, unavailable IO_ERROR.
  using Row = std::function<bool(std::string_view key, std::string_view value)>;
  virtual Status scan(std::string_view from, std::string_view to, const Row& row) = 0;
  virtual uint64_t size_bytes() = 0;
};

}  // namespace uccp::storage
