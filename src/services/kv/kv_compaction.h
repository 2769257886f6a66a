// Giving up history: a compaction says at once what can no longer be read; sweeping then removes the rows, step by
// step.
#pragma once

#include <cstdint>

#include "machine/domain.h"
#include "services/kv/kv_rows.h"
#include "services/kv/kv_writer.h"

namespace uccp::kv {

// From now on nothing before `revision` is readable. Errors: failed_precondition REVISION_COMPACTED, invalid
// REVISION_FUTURE.
Status compact(StoreWriter& writer, uint64_t revision);

// Goes through about `changes_max` changes of the log of revisions and removes what is given up. True: nothing is left.
bool sweep(machine::ApplyContext& context, StoreWriter& writer, size_t changes_max);

inline bool needs_sweeping(const Head& head) { return head.compacted > 0 && head.swept <= head.compacted; }

}  // namespace uccp::kv
