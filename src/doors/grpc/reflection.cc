#include "doors/grpc/reflection.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/text_format.h>

#include <set>
#include <vector>

#include "base/check.h"
#include "call/contract.h"
#include "call/wire.h"

namespace uccp::doors {
namespace {

using google::protobuf::DescriptorPool;
using google::protobuf::FileDescriptor;

// Field numbers of ServerReflectionRequest and ServerReflectionResponse.
enum Request : uint32_t { kByFilename = 3, kBySymbol = 4, kByExtension = 5, kExtensionNumbers = 6, kListServices = 7 };
enum Response : uint32_t { kValidHost = 1, kOriginal = 2, kFiles = 4, kNumbers = 5, kServices = 6, kError = 7 };
constexpr uint64_t kGrpcInvalidArgument = 3;
constexpr uint64_t kGrpcNotFound = 5;

// No package of the distribution has health.proto, which clients want to see before they call it.
constexpr char kHealthFile[] = R"(
  name: "grpc/health/v1/health.proto" package: "grpc.health.v1" syntax: "proto3"
  message_type { name: "HealthCheckRequest"
    field { name: "service" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL json_name: "service" } }
  message_type { name: "HealthCheckResponse"
    field { name: "status" number: 1 type: TYPE_ENUM label: LABEL_OPTIONAL json_name: "status"
            type_name: ".grpc.health.v1.HealthCheckResponse.ServingStatus" }
    enum_type { name: "ServingStatus" value { name: "UNKNOWN" number: 0 } value { name: "SERVING" number: 1 }
                value { name: "NOT_SERVING" number: 2 } value { name: "SERVICE_UNKNOWN" number: 3 } } }
  service { name: "Health"
    method { name: "Check" input_type: ".grpc.health.v1.HealthCheckRequest"
             output_type: ".grpc.health.v1.HealthCheckResponse" }
    method { name: "Watch" input_type: ".grpc.health.v1.HealthCheckRequest"
             output_type: ".grpc.health.v1.HealthCheckResponse" server_streaming: true } })";

const DescriptorPool& health_pool() {
  static const DescriptorPool* const kPool = [] {
    auto* pool = new DescriptorPool();
    google::protobuf::FileDescriptorProto file;
    UCCP_CHECK(google::protobuf::TextFormat::ParseFromString(kHealthFile, &file), "health.proto is well-formed");
    UCCP_CHECK(pool->BuildFile(file) != nullptr, "health.proto is consistent");
    return pool;
  }();
  return *kPool;
}

// `find` on the pool of the contract, then on that of the health service.
template <typename Find>
const FileDescriptor* find_in_pools(Find find) {
  const FileDescriptor* file = find(*DescriptorPool::generated_pool());
  return file != nullptr ? file : find(health_pool());
}

void put_error(std::string& out, uint64_t code, std::string_view message) {
  const size_t mark = call::begin_bytes(out, kError);
  call::put_uint(out, 1, code);
  call::put_bytes(out, 2, message);
  call::end_bytes(out, mark);
}

// The file and all that it imports, each once, so that a client needs one question.
void put_files(std::string& out, const FileDescriptor* file, std::string_view wanted) {
  if (file == nullptr) return put_error(out, kGrpcNotFound, "not found: " + std::string(wanted));
  const size_t mark = call::begin_bytes(out, kFiles);
  std::set<const FileDescriptor*> seen{file};
  std::vector<const FileDescriptor*> todo{file};
  for (size_t i = 0; i < todo.size(); ++i) {
    google::protobuf::FileDescriptorProto proto;
    todo[i]->CopyTo(&proto);
    call::put_bytes(out, 1, proto.SerializeAsString());
    for (int d = 0; d < todo[i]->dependency_count(); ++d) {
      if (seen.insert(todo[i]->dependency(d)).second) todo.push_back(todo[i]->dependency(d));
    }
  }
  call::end_bytes(out, mark);
}

void put_services(std::string& out) {
  const size_t mark = call::begin_bytes(out, kServices);
  const auto put = [&out](std::string_view name) {
    const size_t service = call::begin_bytes(out, 1);
    call::put_bytes(out, 1, name);
    call::end_bytes(out, service);
  };
  put("grpc.health.v1.Health");
  for (const std::string& name : call::Contract::get().services()) {
    // The wire between our own processes is no offer to clients.
    if (!name.starts_with("uccp.internal.")) put(name);
  }
  call::end_bytes(out, mark);
}

void put_extension_file(std::string& out, std::string_view request) {
  std::string type;
  int number = 0;
  call::WireReader reader(request);
  for (call::WireField field; reader.next(field);) {
    if (field.number == 1) type = field.bytes;
    if (field.number == 2) number = static_cast<int>(field.value);
  }
  const DescriptorPool* pool = DescriptorPool::generated_pool();
  const auto* message = pool->FindMessageTypeByName(type);
  const auto* extension = message == nullptr ? nullptr : pool->FindExtensionByNumber(message, number);
  put_files(out, extension == nullptr ? nullptr : extension->file(), type + " " + std::to_string(number));
}

void put_extension_numbers(std::string& out, const std::string& type) {
  const DescriptorPool* pool = DescriptorPool::generated_pool();
  const auto* message = pool->FindMessageTypeByName(type);
  if (message == nullptr) return put_error(out, kGrpcNotFound, "not found: " + type);
  std::vector<const google::protobuf::FieldDescriptor*> extensions;
  pool->FindAllExtensions(message, &extensions);
  const size_t mark = call::begin_bytes(out, kNumbers);
  call::put_bytes(out, 1, type);
  for (const auto* extension : extensions) call::put_uint(out, 2, static_cast<uint64_t>(extension->number()));
  call::end_bytes(out, mark);
}

}  // namespace

std::string reflect(std::string_view request) {
  std::string out;
  call::put_bytes(out, kOriginal, request);
  call::WireReader reader(request);
  call::WireField asked;
  for (call::WireField field; reader.next(field);) {
    if (field.number == 1) call::put_bytes(out, kValidHost, field.bytes);
    if (field.number >= kByFilename && field.number <= kListServices) asked = field;
  }
  const std::string name(asked.bytes);
  switch (asked.number) {
    case kByFilename:
      put_files(out, find_in_pools([&](const DescriptorPool& pool) { return pool.FindFileByName(name); }), name);
      break;
    case kBySymbol:
      put_files(out, find_in_pools([&](const DescriptorPool& pool) { return pool.FindFileContainingSymbol(name); }),
                name);
      break;
    case kByExtension: put_extension_file(out, asked.bytes); break;
    case kExtensionNumbers: put_extension_numbers(out, name); break;
    case kListServices: put_services(out); break;
    default: put_error(out, kGrpcInvalidArgument, "the request asks nothing");
  }
  return out;
}

}  // namespace uccp::doors
