// Locks that cover a name and every name below it ("trees"): what stands in the way across names, and who is served
// when it is gone.
//
// Two holds of different names are in each other's way when one covers the other's name, unless both are shared, or
// both are reentrant and of one owner. Who waits stands in the way of those who come behind it in the order of queues
// (rank, then number), across names as within one: so every wait is for a hold or for an earlier wait, and none is for
// itself. A name without "/" that nobody covers costs nothing; one with parents reads a row for each of them.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "machine/domain.h"
#include "services/locks/locks_state.h"

namespace uccp::locks {

// Names below a tree that are served at once when it ends; the rest follows by a lease of 1 ms.
inline constexpr int kTreeServedMax = 256;
// The same for grants: with those of one more name they must have tokens of their own.
inline constexpr uint64_t kTreeGrantsMax = 4096;
static_assert(kTreeGrantsMax + kHoldersMax < 1u << kTokenBits);

// Rank and number: the order in which those who wait are served.
using Place = std::pair<uint32_t, uint64_t>;

// "a/b/c": "a", "a/b".
std::vector<std::string> names_above(std::string_view name);

// An owner in the way of `wanted` at the lock `name`, by a hold or an earlier wait of another name; nullopt: none.
std::optional<std::string> hindered(const machine::KeyReader& state, const machine::Scope& scope,
                                    const std::string& name, const internal::v1::PermitHolder& wanted, Place place);
// Owners that are in the way of what `owner` waits for, or begins to wait for, at other names than `name` itself.
void owners_across(const machine::KeyReader& state, const machine::Scope& scope, const std::string& name,
                   const internal::v1::PermitHolder& wanted, Place place,
                   const std::function<bool(const std::string&)>& visit);

// The first name behind `after` below `name` that somebody waits for; `after` empty: the first of all.
std::optional<std::string> next_waited_below(const machine::KeyReader& state, const machine::Scope& scope,
                                             const std::string& name, const std::string& after);

}  // namespace uccp::locks
