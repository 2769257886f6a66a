// Answers of changes, written straight to the wire: the values in them are copied once.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "services/kv/kv_writer.h"
#include "uccp/v1/kv.pb.h"

namespace uccp::kv {

// Serialized PutResponse.
std::string put_answer(const v1::PutRequest& request, const std::optional<std::string>& before, uint64_t revision);
// Serialized DeleteResponse. Errors: exhausted RANGE_TOO_LARGE if the versions before were asked for and are too many.
Result<std::string> delete_answer(const v1::DeleteRequest& request, const std::vector<StoreWriter::Deleted>& deleted,
                                  uint64_t revision);

// Without what only the leader knows, and without keys.
v1::KeyLease shown_lease(const machine::Scope& scope, int64_t id, const LeaseRow& row);
v1::KeyValueStore shown_store(const machine::Scope& scope, const Head& head, const internal::v1::KvLimits& limits);

}  // namespace uccp::kv
