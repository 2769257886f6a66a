// What became of keys: the versions of one, the differences between two revisions, and going back. Pure.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "machine/domain.h"
#include "services/kv/kv_rows.h"
#include "services/kv/kv_writer.h"
#include "uccp/v1/kv.pb.h"

namespace uccp::kv {

// A serialized GetHistoryResponse. Errors: not_found KEY_NOT_FOUND.
Result<std::string> history_answer(const machine::KeyReader& state, const machine::Scope& scope, const Head& head,
                                   const v1::GetHistoryRequest& request);

// Goes through the keys that two revisions have different values of, in the order of keys, in steps.
class DiffRun {
 public:
  // The rows of both versions; empty where the key did not exist. False: stop here.
  using Visit = std::function<bool(const std::string& key, const std::string& before, const std::string& after)>;

  // Requires: readable revisions.
  DiffRun(machine::Scope scope, KeyRange range, uint64_t from, uint64_t to, uint64_t current)
      : scope_(std::move(scope)), range_(std::move(range)), from_(from), to_(to), current_(current) {}
  // Looks at about `keys_max` more keys; true: at the end, or stopped.
  bool step(const machine::KeyReader& state, size_t keys_max, const Visit& visit);
  // Of what is left.
  const KeyRange& range() const { return range_; }

 private:
  const machine::Scope scope_;
  KeyRange range_;
  const uint64_t from_, to_, current_;
};

// One Diff, in steps.
class DiffAnswer {
 public:
  // Errors: as revision_to_read(), RANGE_INVALID.
  static Result<DiffAnswer> make(const v1::DiffRequest& request, const machine::Scope& scope, const Head& head);
  Result<bool> step(const machine::KeyReader& state, size_t keys_max);
  // A serialized DiffResponse.
  std::string answer();

 private:
  DiffAnswer(DiffRun run, int limit, uint64_t revision) : run_(std::move(run)), limit_(limit), revision_(revision) {}

  DiffRun run_;
  int limit_;
  uint64_t revision_;
  int found_ = 0;
  std::string out_;
  std::string next_key_;
};

// What a rollback would do, in steps: the read that answers `validateOnly`.
class RollbackPreview {
 public:
  static Result<RollbackPreview> make(const v1::RollbackRequest& request, const machine::Scope& scope,
                                      const Head& head);
  Result<bool> step(const machine::KeyReader& state, size_t keys_max);
  std::string answer() const { return response_.SerializeAsString(); }

 private:
  explicit RollbackPreview(DiffRun run) : run_(std::move(run)) {}
  DiffRun run_;
  v1::RollbackResponse response_;
};

// Gives the keys of the range the values that they had at the revision; those that exist keep their leases.
// Errors: as RollbackPreview; exhausted ROLLBACK_TOO_LARGE; as StoreWriter::put().
Result<v1::RollbackResponse> roll_back(machine::ApplyContext& context, StoreWriter& writer,
                                       const v1::RollbackRequest& request, const internal::v1::KvLimits& limits);

}  // namespace uccp::kv
