// Strong types for the numbers and names that must not be mixed up.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>

namespace uccp {

// A 64-bit number with a meaning. Ordered; arithmetic only where written out at the use.
template <typename Tag>
struct StrongInt {
  uint64_t value = 0;

  constexpr StrongInt() = default;
  constexpr explicit StrongInt(uint64_t v) : value(v) {}

  constexpr auto operator<=>(const StrongInt&) const = default;
  constexpr StrongInt next() const { return StrongInt(value + 1); }
  // Requires value > 0.
  constexpr StrongInt prev() const { return StrongInt(value - 1); }
  constexpr explicit operator bool() const { return value != 0; }
};

// Raft term. 0 before the first election.
using Term = StrongInt<struct TermTag>;
// Position in a group's log, from 1. 0 means "before the log".
using LogIndex = StrongInt<struct LogIndexTag>;
// Position in a group's history as clients see it: the log index of the change.
using Revision = StrongInt<struct RevisionTag>;
// A member of the cluster. 0 means "nobody".
using NodeId = StrongInt<struct NodeIdTag>;
// A replicated group on a node. The numbers of the fixed groups are part of the on-disk format.
using GroupId = StrongInt<struct GroupIdTag>;
// A client session of the replicated machine: the log index that opened it.
using SessionId = StrongInt<struct SessionIdTag>;
// Random number of a data directory, made once; a copied or wiped directory is told apart by it.
using Incarnation = StrongInt<struct IncarnationTag>;

inline constexpr GroupId kCoreGroup{1};
inline constexpr GroupId kWorkGroup{2};

}  // namespace uccp

template <typename Tag>
struct std::hash<uccp::StrongInt<Tag>> {
  size_t operator()(const uccp::StrongInt<Tag>& id) const noexcept { return std::hash<uint64_t>()(id.value); }
};
