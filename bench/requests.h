// The requests that benchmarks send, and what they read of the answers, as protobuf bytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace uccp::bench {

// Service `name` of the discovery benchmark: "svc-00042".
std::string service_name(uint64_t name);
// RegisterRequest of instance `instance` of service `name`, with labels, a version, a zone and the given TTL.
std::string register_request(uint64_t name, uint64_t instance, int64_t ttl_s);
std::string instance_id(uint64_t name, uint64_t instance);
std::string discover_request(uint64_t name);
// Requests whose only field is an id: GetServiceMetadata, Heartbeat.
std::string id_request(std::string_view id);
// ScheduleTaskRequest of `command` for a worker that has the label; empty: any worker.
std::string schedule_request(std::string_view name, std::string_view command, std::string_view wanted_label);

// Items of the repeated field `number` of a message.
uint64_t count_items(std::string_view message, uint32_t number);
// The first bytes field with that number; empty if there is none.
std::string_view bytes_field(std::string_view message, uint32_t number);
uint64_t varint_field(std::string_view message, uint32_t number);

// etcd's wire: a put of a key, and a read of all keys that begin with `prefix`, from this node's state.
std::string etcd_put(std::string_view key, std::string_view value);
std::string etcd_range(std::string_view prefix);
inline constexpr char kEtcdPut[] = "etcdserverpb.KV/Put";
inline constexpr char kEtcdRange[] = "etcdserverpb.KV/Range";

}  // namespace uccp::bench
