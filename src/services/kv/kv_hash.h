// A hash of a store at a revision, equal on all nodes, however far their sweeping is: of what every revision behind the
// compaction changed, and of all pairs at the revision.
#pragma once

#include <cstdint>
#include <string>

#include "services/kv/kv_rows.h"
#include "uccp/v1/kv.pb.h"

namespace uccp::kv {

class StoreHash {
 public:
  // Errors: as revision_to_read().
  static Result<StoreHash> make(const v1::HashStoreRequest& request, const machine::Scope& scope, const Head& head);
  // Goes through about `rows_max` rows more of the same state; true: at the end.
  Result<bool> step(const machine::KeyReader& state, size_t rows_max);
  // A serialized HashStoreResponse.
  std::string answer() const;

 private:
  void add(std::string_view key, std::string_view row);

  machine::Scope scope_;
  Head head_;
  uint64_t at_ = 0;
  std::string log_from_;  // empty: the log is done
  KeyRange pairs_;
  uint64_t hash_ = 0;
};

}  // namespace uccp::kv
