// Log entries beside the state that needs them, for groups whose data stays in the log.
//
// A snapshot is the state alone, and a replica that begins with one has no log before it. So whoever makes one puts the
// entries that the state needs into a table first, and they travel as rows. The table is outside the digest: each
// replica has others there. Whoever reads looks into the log first, then here.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/log_types.h"
#include "machine/key_reader.h"
#include "storage/kv.h"

namespace uccp::machine {

// Table of the machine: u64 index -> u64 term, data. Commands only.
inline constexpr uint16_t kEntryTable = 9;

// Adds the commands among the entries. Loop thread.
Status keep_entries(storage::Kv& kv, GroupId group, StateSlot slot, std::span<const Entry> entries);
// The kept ones in [from, to), at least one if there is one, then while they have at most `bytes_max` bytes.
std::vector<Entry> read_kept(const KeyReader& state, LogIndex from, LogIndex to, uint64_t bytes_max);
// Removes those before `index`. Loop thread.
Status drop_kept(storage::Kv& kv, GroupId group, StateSlot slot, LogIndex index);
// Removes those from `index` on. Loop thread.
Status drop_kept_from(storage::Kv& kv, GroupId group, StateSlot slot, LogIndex index);

}  // namespace uccp::machine
