// The requests that benchmarks send, and what they read of the answers, as protobuf bytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

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

// Requests of KeyValue.
std::string kv_put(std::string_view key, std::string_view value);
std::string kv_get(std::string_view key);
std::string kv_put_many(const std::vector<std::pair<std::string, std::string>>& pairs);
inline constexpr char kKvPut[] = "uccp.v1.KeyValue/Put";
inline constexpr char kKvGet[] = "uccp.v1.KeyValue/Get";
inline constexpr char kKvTxn[] = "uccp.v1.KeyValue/Txn";

// Items of the repeated field `number` of a message.
uint64_t count_items(std::string_view message, uint32_t number);
// The first bytes field with that number; empty if there is none.
std::string_view bytes_field(std::string_view message, uint32_t number);
uint64_t varint_field(std::string_view message, uint32_t number);

// etcd's wire: a put of a key, and a read of all keys that begin with `prefix`, from this node's state.
std::string etcd_put(std::string_view key, std::string_view value);
std::string etcd_range(std::string_view prefix);
// A read of one key; `serializable`: from this node's state, however old.
std::string etcd_get(std::string_view key, bool serializable);
// One transaction of puts.
std::string etcd_put_many(const std::vector<std::pair<std::string, std::string>>& pairs);
inline constexpr char kEtcdTxn[] = "etcdserverpb.KV/Txn";
inline constexpr char kEtcdStatus[] = "etcdserverpb.Maintenance/Status";
inline constexpr char kEtcdPut[] = "etcdserverpb.KV/Put";
inline constexpr char kEtcdRange[] = "etcdserverpb.KV/Range";

}  // namespace uccp::bench
