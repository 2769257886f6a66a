// How fresh a read has to be.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "base/status.h"

namespace uccp::machine {

struct ReadLevel {
  enum class Kind : uint8_t {
    kLinearizable,  // sees every write acknowledged before the read began
    kLease,         // the same under a bounded clock drift, without a round trip
    kBounded,       // at most bound_ms old
    kSession,       // at least as new as the token
  };
  Kind kind = Kind::kLinearizable;
  int64_t bound_ms = 0;
  std::map<GroupId, LogIndex> token;

  static ReadLevel linearizable() { return {}; }
  static ReadLevel bounded(int64_t ms) { return {.kind = Kind::kBounded, .bound_ms = ms}; }
};

// "linearizable", "lease", "bounded:500" (milliseconds), "session:1=42,2=7". Errors: invalid CONSISTENCY_INVALID.
Result<ReadLevel> parse_read_level(std::string_view text);
std::string session_token(const std::map<GroupId, LogIndex>& token);

}  // namespace uccp::machine
