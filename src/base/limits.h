// The limits of the platform that are part of its contract, in one place. docs/limits.md is written from this table.
#pragma once

#include <cstddef>
#include <cstdint>

namespace uccp::limits {

// A request or response message, and one item of a stream.
inline constexpr size_t kMessageBytesMax = 4u << 20;
// A command in the log. Larger things go to the blob store by hash.
inline constexpr size_t kCommandBytesMax = 2u << 20;
// Proposals of one group that are not applied yet.
inline constexpr size_t kProposalsInFlightMax = 20'000;
inline constexpr size_t kProposalBytesInFlightMax = 64u << 20;
// Entries and bytes of one append to the log.
inline constexpr size_t kAppendEntriesMax = 1024;
inline constexpr size_t kAppendBytesMax = 8u << 20;
// Pages of lists.
inline constexpr uint32_t kPageSizeDefault = 100;
inline constexpr uint32_t kPageSizeMax = 1000;
// Watches on one node, and items waiting for one slow watcher.
inline constexpr size_t kWatchersMax = 100'000;
inline constexpr size_t kWatcherQueueMax = 10'000;
// Changes kept for resuming a watch, a group.
inline constexpr size_t kChangesKept = 100'000;
// Request ids remembered for one principal, and how long.
inline constexpr size_t kRequestIdsPerPrincipalMax = 1'000'000;
inline constexpr int64_t kRequestIdTtlMs = 24 * 3600 * 1000;
// Calls at work on one node.
inline constexpr size_t kCallsInFlightMax = 10'000;
// Names, labels and the like.
inline constexpr size_t kNameBytesMax = 253;
// A call without a deadline gets this one; no call gets a longer one. Streams have none.
inline constexpr int64_t kDeadlineDefaultMs = 30'000;
inline constexpr int64_t kDeadlineMaxMs = 3600'000;

}  // namespace uccp::limits
