// Ids of resources: a type prefix and a ULID, such as "svc_01J8ZQ4V5KX6N2YB3D7E9F0GHT".
//
// 48 bits of wall time in milliseconds, then 80 random bits, in Crockford's base 32, so that ids sort by creation as
// far as the wall clock allows (https://github.com/ulid/spec). Ids are made by the proposer and travel in the command;
// apply never makes one. Pure function of its input.
#pragma once

#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/random.h"

namespace uccp::machine {

// Characters behind the prefix.
inline constexpr size_t kResourceIdSuffixBytes = 26;

// `prefix` comes without the underscore: make_id("svc", ...). Draws two numbers from `random`.
std::string make_id(std::string_view prefix, WallTime wall, Random& random);

}  // namespace uccp::machine
