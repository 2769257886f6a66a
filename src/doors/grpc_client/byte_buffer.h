// Between std::string and grpc::ByteBuffer. Included by .cc files and private headers of the gRPC folders only.
#pragma once

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <memory>
#include <string>
#include <vector>

namespace uccp::doors {

inline grpc::ByteBuffer to_byte_buffer(std::string bytes) {
  // Below this a copy costs less than an allocation with a destructor.
  constexpr size_t kCopiedMax = 4096;
  if (bytes.size() <= kCopiedMax) {
    const grpc::Slice slice(bytes);
    return grpc::ByteBuffer(&slice, 1);
  }
  auto* owner = new std::string(std::move(bytes));
  const grpc::Slice slice(owner->data(), owner->size(), [](void* p) { delete static_cast<std::string*>(p); }, owner);
  return grpc::ByteBuffer(&slice, 1);
}

inline std::string to_string(const grpc::ByteBuffer& buffer) {
  grpc::Slice single;
  if (buffer.TrySingleSlice(&single).ok()) {
    return {reinterpret_cast<const char*>(single.begin()), single.size()};
  }
  std::string out;
  std::vector<grpc::Slice> slices;
  if (!buffer.Dump(&slices).ok()) return out;
  out.reserve(buffer.Length());
  for (const grpc::Slice& slice : slices) out.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return out;
}

}  // namespace uccp::doors
