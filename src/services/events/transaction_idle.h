// Forgets producers of transactions that nobody has seen for long, so that their rows do not gather.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "machine/domain.h"

namespace uccp::events {

// Who is idle for this long is forgotten, with what is known of it.
inline constexpr int64_t kIdleKeptMs = 7LL * 24 * 3600 * 1000;
// Kinds of rows that are forgotten when they are idle.
enum class IdleKind : uint8_t { kProducer = 1, kGuard = 2 };
// Notes that the producer was seen now and not at `before_ms` (0: never before), and names a few that nobody has seen
// for long: the caller erases their rows.
std::vector<std::pair<machine::Scope, std::string>> touch(machine::ApplyContext& context, IdleKind kind,
                                                          std::string_view producer, int64_t before_ms);

}  // namespace uccp::events
