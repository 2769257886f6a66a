#include "bench/requests.h"

#include <fmt/format.h>

#include "call/wire.h"
#include "uccp/v1/discovery.pb.h"
#include "uccp/v1/tasks.pb.h"

namespace uccp::bench {

std::string service_name(uint64_t name) { return fmt::format("svc-{:05}", name); }
std::string instance_id(uint64_t name, uint64_t instance) { return fmt::format("svc-{:05}.{}", name, instance); }

std::string register_request(uint64_t name, uint64_t instance, int64_t ttl_s) {
  uccp::v1::RegisterRequest request;
  auto& service = *request.mutable_service();
  service.set_id(instance_id(name, instance));
  service.set_service_name(service_name(name));
  service.set_version("1.4.2");
  service.set_address(fmt::format("10.{}.{}.{}", name / 256 % 256, name % 256, instance % 256));
  service.set_port(static_cast<int32_t>(8080 + instance / 256));
  service.set_protocol("grpc");
  service.set_zone("a");
  (*service.mutable_labels())["tier"] = "web";
  (*service.mutable_labels())["env"] = "bench";
  service.mutable_ttl()->set_seconds(ttl_s);
  return request.SerializeAsString();
}

std::string discover_request(uint64_t name) {
  uccp::v1::DiscoverRequest request;
  request.set_name(service_name(name));
  return request.SerializeAsString();
}

std::string id_request(std::string_view id) {
  std::string out;
  call::put_bytes(out, 1, id);
  return out;
}

std::string schedule_request(std::string_view name, std::string_view command, std::string_view wanted_label) {
  uccp::v1::ScheduleTaskRequest request;
  auto& task = *request.mutable_task();
  task.set_name(std::string(name));
  task.add_command(std::string(command));
  if (!wanted_label.empty()) (*task.mutable_node_selector())[std::string(wanted_label)] = "true";
  return request.SerializeAsString();
}

uint64_t count_items(std::string_view message, uint32_t number) {
  call::WireReader reader(message);
  uint64_t count = 0;
  for (call::WireField field; reader.next(field);) count += field.number == number ? 1 : 0;
  return reader.ok() ? count : 0;
}

std::string_view bytes_field(std::string_view message, uint32_t number) {
  call::WireReader reader(message);
  for (call::WireField field; reader.next(field);) {
    if (field.number == number) return field.bytes;
  }
  return {};
}

uint64_t varint_field(std::string_view message, uint32_t number) {
  call::WireReader reader(message);
  for (call::WireField field; reader.next(field);) {
    if (field.number == number) return field.value;
  }
  return 0;
}

std::string etcd_put(std::string_view key, std::string_view value) {
  std::string out;
  call::put_bytes(out, 1, key);
  call::put_bytes(out, 2, value);
  return out;
}

std::string etcd_get(std::string_view key, bool serializable) {
  std::string out;
  call::put_bytes(out, 1, key);
  if (serializable) call::put_uint(out, 7, 1);
  return out;
}

// TxnRequest{success: RequestOp{request_put}}.
std::string etcd_put_many(const std::vector<std::pair<std::string, std::string>>& pairs) {
  std::string out;
  for (const auto& [key, value] : pairs) {
    std::string operation;
    call::put_bytes(operation, 2, etcd_put(key, value));
    call::put_bytes(out, 2, operation);
  }
  return out;
}

std::string kv_put(std::string_view key, std::string_view value) {
  std::string out;
  call::put_bytes(out, 1, key);
  call::put_bytes(out, 3, value);
  return out;
}

std::string kv_get(std::string_view key) {
  std::string out;
  call::put_bytes(out, 1, key);
  return out;
}

// TxnRequest{success: TxnOperation{put}}.
std::string kv_put_many(const std::vector<std::pair<std::string, std::string>>& pairs) {
  std::string out;
  for (const auto& [key, value] : pairs) {
    std::string operation;
    call::put_bytes(operation, 1, kv_put(key, value));
    call::put_bytes(out, 2, operation);
  }
  return out;
}

std::string etcd_range(std::string_view prefix) {
  std::string out;
  call::put_bytes(out, 1, prefix);
  std::string end(prefix);
  ++end.back();
  call::put_bytes(out, 2, end);
  call::put_uint(out, 7, 1);  // serializable
  return out;
}

}  // namespace uccp::bench
