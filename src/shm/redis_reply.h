// Replies of a Redis server (RESP 2).
//
// Pure functions; callable from any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace uccp::shm {

struct RedisReply {
  enum class Kind : uint8_t { kText, kError, kInteger, kBytes, kNone, kList };
  Kind kind = Kind::kNone;
  std::string text;  // of the first two, and bytes
  int64_t integer = 0;
  std::vector<RedisReply> list;
};

inline constexpr size_t kRedisBytesMax = 64u << 20;  // of one reply
inline constexpr size_t kRedisListMax = 100'000;
inline constexpr int kRedisDepthMax = 4;

// Takes the reply at the beginning of `in` away from it; nothing, and `in` is as it was: it has not come whole. Errors:
// corruption REDIS_REPLY_INVALID.
Result<std::optional<RedisReply>> take_redis_reply(std::string_view& in);

// A command as it is sent.
std::string redis_command(const std::vector<std::string_view>& words);

}  // namespace uccp::shm
