#include "services/kv/kv_compaction.h"

#include <vector>

#include "base/bytes.h"
#include "services/kv/kv_range.h"
#include "services/kv/kv_writer.h"

namespace uccp::kv {
namespace {

struct Logged {
  std::string row_key;
  std::string row;
  uint64_t revision = 0;
};

// Changes with a revision in [from, to], whole revisions.
std::vector<Logged> read_log(const machine::KeyReader& state, const machine::Scope& scope, uint64_t from, uint64_t to,
                             size_t changes_max) {
  std::vector<Logged> changes;
  const size_t prefix = machine::table_key::scope_prefix(kRevisionTable, scope).size();
  state.scan(revision_key(scope, from, 0), revision_key(scope, to + 1, 0),
             [&](std::string_view key, std::string_view row) {
               const uint64_t revision = ByteReader(key.substr(prefix)).u64();
               if (changes.size() >= changes_max && revision != changes.back().revision) return false;
               changes.push_back({std::string(key), std::string(row), revision});
               return true;
             });
  return changes;
}

}  // namespace

Status compact(StoreWriter& writer, uint64_t revision) {
  Head& head = writer.head();
  if (revision <= head.compacted) {
    return Status(Code::kFailedPrecondition, "REVISION_COMPACTED",
                  "the revision " + std::to_string(revision) +
                      " is compacted already; the oldest that can be read is " + std::to_string(head.compacted));
  }
  UCCP_TRY(head.compacted, revision_to_read(head, static_cast<int64_t>(revision)));
  writer.finish();
  return Status::ok();
}

// A version is given up when the change that replaced it is not newer than the compaction. The log names it, so it need
// not be searched. The log itself stays from the compaction's revision on: a watch may start there.
bool sweep(machine::ApplyContext& context, StoreWriter& writer, size_t changes_max) {
  Head& head = writer.head();
  if (!needs_sweeping(head)) return true;
  machine::Transaction& state = context.state();
  const machine::Scope& scope = context.scope();
  // The entry of the log that the last compaction left is the first one of this.
  const uint64_t from = head.swept > 0 ? head.swept - 1 : 0;
  const auto changes = read_log(state, scope, from, head.compacted, changes_max);
  const auto give_up = [&](std::string_view key, uint64_t revision) {
    const std::string row_key = history_key(scope, key, revision);
    auto row = state.get(row_key);
    if (!row) return;
    head.history_bytes -= key.size() + row->size();
    state.replace(row_key, std::move(row), std::nullopt);
  };
  for (const Logged& change : changes) {
    const Revision logged = decode_revision(change.row);
    if (logged.previous != 0) give_up(logged.key, logged.previous);
    if (logged.kind == ChangeKind::kDelete) give_up(logged.key, change.revision);
    if (change.revision == head.compacted) continue;
    head.history_bytes -= kRevisionRowBytes + change.row.size();
    state.replace(change.row_key, change.row, std::nullopt);
  }
  const bool whole = changes.size() < changes_max || changes.back().revision >= head.compacted;
  head.swept = (whole ? head.compacted : changes.back().revision) + 1;
  writer.finish();
  return whole;
}

}  // namespace uccp::kv
