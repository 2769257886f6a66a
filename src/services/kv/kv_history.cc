#include "services/kv/kv_history.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "call/wire.h"
#include "services/kv/kv_range.h"

namespace uccp::kv {
namespace {

constexpr int kVersionsDefault = 50;
constexpr int kDifferencesDefault = 1000;

void append_version(std::string& out, std::string_view key, uint64_t revision, std::string_view row) {
  const size_t mark = call::begin_bytes(out, v1::GetHistoryResponse::kVersionsFieldNumber);
  call::put_uint(out, v1::KeyVersion::kRevisionFieldNumber, revision);
  if (const auto version = decode_version(row)) append_pair(out, v1::KeyVersion::kPairFieldNumber, key, *version);
  else call::put_uint(out, v1::KeyVersion::kDeletedFieldNumber, 1);
  call::end_bytes(out, mark);
}

uint64_t oldest_readable(const Head& head) { return std::max<uint64_t>(1, head.compacted); }

std::string_view value_of(const std::string& row) { return decode_version(row)->value; }

// Up to `keys_max` keys of the range at one revision. True: all of them.
bool read_keys(const machine::KeyReader& state, const machine::Scope& scope, const KeyRange& range, uint64_t at,
               uint64_t current, size_t keys_max, std::vector<std::pair<std::string, std::string>>& out) {
  if (range.single) {
    if (auto row = version_at(state, scope, range.from, at, current)) out.emplace_back(range.from, std::move(*row));
    return true;
  }
  bool whole = true;
  scan_versions(state, scope, range, at, current, [&](std::string_view key, std::string_view row) {
    if (out.size() == keys_max) return whole = false;
    out.emplace_back(key, row);
    return true;
  });
  return whole;
}

}  // namespace

Result<std::string> history_answer(const machine::KeyReader& state, const machine::Scope& scope, const Head& head,
                                   const v1::GetHistoryRequest& request) {
  const std::string& key = request.key();
  const uint64_t before = request.before_revision() > 0 ? static_cast<uint64_t>(request.before_revision()) : UINT64_MAX;
  const int limit = request.limit() > 0 ? request.limit() : kVersionsDefault;
  std::string out;
  int versions = 0;
  bool more = false;
  // False: enough.
  const auto take = [&](uint64_t revision, std::string_view row) {
    // A deletion before everything readable says nothing any more.
    if (revision <= head.compacted && !decode_version(row)) return false;
    more = versions == limit || out.size() > kRangeBytesMax;
    if (more) return false;
    append_version(out, key, revision, row);
    ++versions;
    // What was newest at the compaction is the oldest that is kept.
    return revision > head.compacted;
  };
  bool go_on = true;
  if (const auto newest = state.get(key_key(scope, key))) {
    const uint64_t revision = decode_version(*newest)->mod;
    if (revision < before) go_on = take(revision, *newest);
  }
  if (go_on) {
    const size_t prefix = history_key(scope, key, 0).size() - sizeof(uint64_t);
    const std::string from = history_key(scope, key, before - 1);
    state.scan(from, machine::prefix_end(from.substr(0, prefix)), [&](std::string_view full, std::string_view row) {
      return take(~ByteReader(full.substr(prefix)).u64(), row);
    });
  }
  if (versions == 0) return fail(key_not_found(key));
  if (more) call::put_uint(out, v1::GetHistoryResponse::kMoreFieldNumber, 1);
  call::put_uint(out, v1::GetHistoryResponse::kRevisionFieldNumber, head.revision);
  return out;
}

bool DiffRun::step(const machine::KeyReader& state, size_t keys_max, const Visit& visit) {
  std::vector<std::pair<std::string, std::string>> before, after;
  const bool all_before = read_keys(state, scope_, range_, from_, current_, keys_max, before);
  const bool all_after = read_keys(state, scope_, range_, to_, current_, keys_max, after);
  // Behind the last key of a side that is cut, nothing can be said yet.
  std::string horizon;
  if (!all_before) horizon = before.back().first;
  if (!all_after && (horizon.empty() || after.back().first < horizon)) horizon = after.back().first;
  auto a = before.begin(), b = after.begin();
  while (a != before.end() || b != after.end()) {
    const bool has_before = a != before.end() && (b == after.end() || a->first <= b->first);
    const bool has_after = b != after.end() && (a == before.end() || b->first <= a->first);
    const std::string& key = has_before ? a->first : b->first;
    if (!horizon.empty() && key > horizon) break;
    const bool same = has_before && has_after && value_of(a->second) == value_of(b->second);
    if (!same && !visit(key, has_before ? a->second : "", has_after ? b->second : "")) {
      range_.from = key;
      return true;
    }
    if (has_before) ++a;
    if (has_after) ++b;
  }
  if (horizon.empty()) return true;
  range_.from = horizon + '\0';
  return false;
}

Result<DiffAnswer> DiffAnswer::make(const v1::DiffRequest& request, const machine::Scope& scope, const Head& head) {
  UCCP_TRY(KeyRange range, range_of(request));
  uint64_t from = oldest_readable(head);
  if (request.from_revision() > 0) {
    UCCP_TRY(from, revision_to_read(head, request.from_revision()));
  }
  UCCP_TRY(const uint64_t to, revision_to_read(head, request.to_revision()));
  const int limit = request.limit() > 0 ? request.limit() : kDifferencesDefault;
  return DiffAnswer(DiffRun(scope, std::move(range), from, to, head.revision), limit, head.revision);
}

Result<bool> DiffAnswer::step(const machine::KeyReader& state, size_t keys_max) {
  return run_.step(state, keys_max,
                   [this](const std::string& key, const std::string& before, const std::string& after) {
                     if (found_ == limit_ || out_.size() > kRangeBytesMax) {
                       next_key_ = key;
                       return false;
                     }
                     ++found_;
                     const auto kind = before.empty()  ? v1::KEY_DIFFERENCE_KIND_ADDED
                                       : after.empty() ? v1::KEY_DIFFERENCE_KIND_REMOVED
                                                       : v1::KEY_DIFFERENCE_KIND_CHANGED;
                     const size_t mark = call::begin_bytes(out_, v1::DiffResponse::kDifferencesFieldNumber);
                     call::put_bytes(out_, v1::KeyDifference::kKeyFieldNumber, key);
                     call::put_uint(out_, v1::KeyDifference::kKindFieldNumber, kind);
                     if (!before.empty())
                       append_pair(out_, v1::KeyDifference::kBeforeFieldNumber, key, *decode_version(before));
                     if (!after.empty())
                       append_pair(out_, v1::KeyDifference::kAfterFieldNumber, key, *decode_version(after));
                     call::end_bytes(out_, mark);
                     return true;
                   });
}

std::string DiffAnswer::answer() {
  std::string out = std::move(out_);
  call::put_uint(out, v1::DiffResponse::kRevisionFieldNumber, revision_);
  if (!next_key_.empty()) {
    call::put_uint(out, v1::DiffResponse::kMoreFieldNumber, 1);
    call::put_bytes(out, v1::DiffResponse::kNextKeyFieldNumber, next_key_);
  }
  return out;
}

namespace {

// From what is now to what was.
Result<DiffRun> way_back(const v1::RollbackRequest& request, const machine::Scope& scope, const Head& head) {
  UCCP_TRY(KeyRange range, range_of(request));
  UCCP_TRY(const uint64_t to, revision_to_read(head, request.revision()));
  return DiffRun(scope, std::move(range), head.revision, to, head.revision);
}

void count(v1::RollbackResponse& response, const std::string& after) {
  if (after.empty()) response.set_deleted(response.deleted() + 1);
  else response.set_restored(response.restored() + 1);
}

}  // namespace

Result<RollbackPreview> RollbackPreview::make(const v1::RollbackRequest& request, const machine::Scope& scope,
                                              const Head& head) {
  UCCP_TRY(DiffRun run, way_back(request, scope, head));
  RollbackPreview preview(std::move(run));
  preview.response_.set_revision(static_cast<int64_t>(head.revision));
  return preview;
}

Result<bool> RollbackPreview::step(const machine::KeyReader& state, size_t keys_max) {
  return run_.step(state, keys_max, [this](const std::string&, const std::string&, const std::string& after) {
    count(response_, after);
    return true;
  });
}

Result<v1::RollbackResponse> roll_back(machine::ApplyContext& context, StoreWriter& writer,
                                       const v1::RollbackRequest& request, const internal::v1::KvLimits& limits) {
  UCCP_TRY(DiffRun run, way_back(request, context.scope(), writer.head()));
  struct Change {
    std::string key, before, after;
  };
  std::vector<Change> changes;
  // One step: what is changed must not be looked at again.
  const bool whole =
      run.step(context.state(), kChangedKeysMax, [&](const auto& key, const auto& before, const auto& after) {
        changes.push_back({key, before, after});
        return changes.size() <= kChangedKeysMax;
      });
  if (!whole || changes.size() > kChangedKeysMax) {
    return fail(Status(Code::kExhausted, "ROLLBACK_TOO_LARGE",
                       "the range has more than " + std::to_string(kChangedKeysMax) +
                           " keys, as many as one change may touch; roll back in parts")
                    .with_help("kv.md#limits"));
  }
  v1::RollbackResponse response;
  for (const Change& change : changes) {
    count(response, change.after);
    if (change.after.empty()) {
      writer.erase(change.key, change.before);
      continue;
    }
    v1::PutRequest put;
    put.set_key(change.key);
    put.set_value(std::string(value_of(change.after)));
    put.set_ignore_lease(!change.before.empty());
    UCCP_TRY(const auto before, writer.put(put, limits));
  }
  response.set_revision(static_cast<int64_t>(writer.revision()));
  return response;
}

}  // namespace uccp::kv
