#include "bench/event_requests.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "bench/requests.h"
#include "call/wire.h"

namespace uccp::bench {
namespace {

// Numbers of fields in the contract.
constexpr uint32_t kTopicField = 1, kEventsField = 3, kDataField = 7, kEventField = 2;
constexpr uint32_t kStartField = 5, kNoFollowField = 16, kKeyField = 6;
constexpr uint32_t kRetentionBytesField = 6, kCompactedField = 9;
constexpr uint64_t kEarliest = 2;

}  // namespace

std::string publish_request(const std::string& topic, std::string_view payload) {
  std::string event, out;
  call::put_bytes(event, kDataField, payload);
  call::put_bytes(out, kTopicField, topic);
  call::put_bytes(out, kEventsField, event);
  return out;
}

std::string publish_many(const std::string& topic, size_t bytes, size_t count) {
  std::string out;
  call::put_bytes(out, kTopicField, topic);
  for (size_t i = 0; i < count; ++i) {
    std::string event;
    call::put_bytes(event, kDataField, stamped(bytes));
    call::put_bytes(out, kEventsField, event);
  }
  return out;
}

std::string keyed_request(const std::string& topic, std::string_view key, std::string_view payload) {
  std::string event, out;
  call::put_bytes(event, kKeyField, key);
  call::put_bytes(event, kDataField, payload);
  call::put_bytes(out, kTopicField, topic);
  call::put_bytes(out, kEventsField, event);
  return out;
}

std::string create_compacted_request(const std::string& topic) {
  std::string inner, out;
  call::put_bytes(inner, kTopicField, topic);
  call::put_uint(inner, kCompactedField, 1);
  call::put_bytes(out, kTopicField, inner);
  return out;
}

std::string create_short_request(const std::string& topic, uint64_t retention_bytes) {
  std::string inner, out;
  call::put_bytes(inner, kTopicField, topic);
  call::put_uint(inner, kRetentionBytesField, retention_bytes);
  call::put_bytes(out, kTopicField, inner);
  return out;
}

std::string create_request(const std::string& topic) {
  std::string inner, out;
  call::put_bytes(inner, kTopicField, topic);
  call::put_bytes(out, kTopicField, inner);
  return out;
}

std::string subscribe_request(const std::string& topic, bool stored) {
  std::string out;
  call::put_bytes(out, kTopicField, topic);
  if (stored) {
    call::put_uint(out, kStartField, kEarliest);
    call::put_uint(out, kNoFollowField, 1);
  }
  return out;
}

std::optional<std::string_view> delivered_payload(std::string_view message) {
  const std::string_view event = bytes_field(message, kEventField);
  if (event.empty()) return std::nullopt;
  return bytes_field(event, kDataField);
}

uint64_t now_ns() { return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count()); }

std::string stamped(size_t bytes) {
  static thread_local uint64_t state = 0x9e3779b97f4a7c15;
  std::string payload(bytes, '\0');
  for (size_t at = 0; at < bytes; at += sizeof state) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    std::memcpy(payload.data() + at, &state, std::min(sizeof state, bytes - at));
  }
  const uint64_t now = now_ns();
  std::memcpy(payload.data(), &now, std::min(sizeof now, bytes));
  return payload;
}

std::optional<uint64_t> stamp_of(std::string_view payload) {
  if (payload.size() < sizeof(uint64_t)) return std::nullopt;
  uint64_t stamp = 0;
  std::memcpy(&stamp, payload.data(), sizeof stamp);
  return stamp;
}

}  // namespace uccp::bench
