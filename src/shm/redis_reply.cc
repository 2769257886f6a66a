#include "shm/redis_reply.h"

#include <charconv>

namespace uccp::shm {
namespace {

constexpr size_t kLineBytesMax = 64u << 10;

std::unexpected<Status> invalid(const std::string& what) {
  return fail(Code::kCorruption, "REDIS_REPLY_INVALID", "what came is no reply of a Redis server: " + what);
}

// The line at the beginning, without its end.
Result<std::optional<std::string_view>> take_line(std::string_view& in) {
  const size_t end = in.substr(0, kLineBytesMax).find("\r\n");
  if (end == std::string_view::npos) {
    if (in.size() >= kLineBytesMax) return invalid("a line has no end");
    return std::nullopt;
  }
  const std::string_view line = in.substr(0, end);
  in.remove_prefix(end + 2);
  return line;
}

Result<int64_t> number_in(std::string_view line) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), number);
  if (error != std::errc() || end != line.data() + line.size() || line.empty()) return invalid("a number is malformed");
  return number;
}

Result<std::optional<RedisReply>> take(std::string_view& in, int depth);

Result<std::optional<RedisReply>> take_bytes(std::string_view& in, int64_t size) {
  if (size == -1) return RedisReply{};
  if (size < 0 || size > static_cast<int64_t>(kRedisBytesMax))
    return invalid("it has " + std::to_string(size) + " bytes");
  const auto length = static_cast<size_t>(size);
  if (in.size() < length + 2) return std::nullopt;
  if (in.substr(length, 2) != "\r\n") return invalid("bytes are longer than they say");
  RedisReply reply{.kind = RedisReply::Kind::kBytes, .text = std::string(in.substr(0, length))};
  in.remove_prefix(length + 2);
  return reply;
}

Result<std::optional<RedisReply>> take_list(std::string_view& in, int64_t size, int depth) {
  if (size == -1) return RedisReply{};
  if (size < 0 || size > static_cast<int64_t>(kRedisListMax) || depth >= kRedisDepthMax)
    return invalid("a list has " + std::to_string(size) + " parts, " + std::to_string(depth) + " deep");
  RedisReply reply{.kind = RedisReply::Kind::kList};
  for (int64_t i = 0; i < size; ++i) {
    UCCP_TRY(auto part, take(in, depth + 1));
    if (!part) return std::nullopt;
    reply.list.push_back(std::move(*part));
  }
  return reply;
}

Result<std::optional<RedisReply>> take(std::string_view& in, int depth) {
  if (in.empty()) return std::nullopt;
  const char kind = in.front();
  in.remove_prefix(1);
  UCCP_TRY(const auto line, take_line(in));
  if (!line) return std::nullopt;
  if (kind == '+') return RedisReply{.kind = RedisReply::Kind::kText, .text = std::string(*line)};
  if (kind == '-') return RedisReply{.kind = RedisReply::Kind::kError, .text = std::string(*line)};
  if (kind != ':' && kind != '$' && kind != '*') return invalid("it begins with none of + - : $ *");
  UCCP_TRY(const int64_t number, number_in(*line));
  if (kind == ':') return RedisReply{.kind = RedisReply::Kind::kInteger, .integer = number};
  return kind == '$' ? take_bytes(in, number) : take_list(in, number, depth);
}

}  // namespace

Result<std::optional<RedisReply>> take_redis_reply(std::string_view& in) {
  std::string_view rest = in;
  UCCP_TRY(auto reply, take(rest, 0));
  if (reply) in = rest;
  return reply;
}

std::string redis_command(const std::vector<std::string_view>& words) {
  std::string out = "*" + std::to_string(words.size()) + "\r\n";
  for (const std::string_view word : words) {
    out += "$" + std::to_string(word.size()) + "\r\n";
    out += word;
    out += "\r\n";
  }
  return out;
}

}  // namespace uccp::shm
