// Requests of the event bus as benchmarks send them, and payloads that say when they were made.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace uccp::bench {

inline constexpr char kPublish[] = "uccp.v1.EventBus/Publish";
inline constexpr char kCreateTopic[] = "uccp.v1.EventBus/CreateTopic";
inline constexpr char kSubscribe[] = "uccp.v1.EventBus/Subscribe";

std::string publish_request(const std::string& topic, std::string_view payload);
// Events with stamped payloads of `bytes` bytes, each another one.
std::string publish_many(const std::string& topic, size_t bytes, size_t count);
// One event with a key.
std::string keyed_request(const std::string& topic, std::string_view key, std::string_view payload);
std::string create_request(const std::string& topic);
std::string create_compacted_request(const std::string& topic);
// A topic that keeps so many bytes.
std::string create_short_request(const std::string& topic, uint64_t retention_bytes);
// `stored`: from the first event to the last one that there is; else new events without end.
std::string subscribe_request(const std::string& topic, bool stored);
// The content of a message of Subscribe; nothing if it has no event.
std::optional<std::string_view> delivered_payload(std::string_view message);

uint64_t now_ns();
// A payload that no compression makes small; its first bytes say when it was made.
std::string stamped(size_t bytes);
std::optional<uint64_t> stamp_of(std::string_view payload);

}  // namespace uccp::bench
