#include "agent/object_frames.h"

#include <algorithm>
#include <cstring>

#include "agent/function_wire.h"
#include "base/bytes.h"

namespace uccp::agent {
namespace {

constexpr size_t kNumberBytes = 8;

}  // namespace

std::string encode(const ObjectLocation& location) {
  std::string bytes;
  append_field(bytes, 'a', location.address);
  append_field(bytes, 'c', location.authority);
  append_field(bytes, 'x', location.grant);
  append_field(bytes, 'z', location.zone);
  return bytes;
}

Result<ObjectLocation> parse_location(std::string_view bytes) {
  ObjectLocation location{.address = std::string(find_field(bytes, 'a')),
                          .authority = std::string(find_field(bytes, 'c')),
                          .grant = std::string(find_field(bytes, 'x')),
                          .zone = std::string(find_field(bytes, 'z'))};
  if (bytes.size() <= kLocationBytesMax && !location.address.empty() && !location.authority.empty() &&
      !location.grant.empty()) {
    return location;
  }
  return fail(Code::kInvalid, "LOCATION_INVALID", "where the object is cannot be read from what came with it");
}

std::string encode_frame(char kind, std::string_view body) {
  return ByteWriter().u32(static_cast<uint32_t>(body.size() + 1)).u8(static_cast<uint8_t>(kind)).raw(body).take();
}

Result<FrameHead> parse_frame_head(std::string_view head) {
  ByteReader in(head);
  const uint32_t size = in.u32();
  const char kind = static_cast<char>(in.u8());
  if (in.at_end() && size >= 1 && size - 1 <= kFrameBytesMax) return FrameHead{.kind = kind, .body_bytes = size - 1};
  return fail(Code::kCorruption, "FRAME_INVALID",
              "a frame of " + std::to_string(size) + " bytes came, from 1 to " + std::to_string(kFrameBytesMax + 1) +
                  " are possible: it is no agent that speaks");
}

std::vector<std::pair<char, std::string_view>> fields_of(std::string_view body) {
  std::vector<std::pair<char, std::string_view>> found;
  ByteReader in(body);
  while (in.ok() && in.remaining() > 0) {
    const char tag = static_cast<char>(in.u8());
    const std::string_view content = in.raw(in.u32());
    if (in.ok()) found.emplace_back(tag, content);
  }
  return found;
}

std::string number_field(char tag, uint64_t number) {
  std::string body;
  append_field(body, tag, ByteWriter().u64(number).data());
  return body;
}

Result<uint64_t> number_of(std::string_view body, char tag) {
  const std::string_view content = find_field(body, tag);
  if (content.size() == kNumberBytes) return ByteReader(content).u64();
  return fail(Code::kInvalid, "REQUEST_INVALID",
              std::string("the field ") + tag + " has 8 bytes, this one " + std::to_string(content.size()));
}

Result<shm::ObjectId> id_of(std::string_view content) {
  shm::ObjectId id;
  if (content.size() != id.size()) {
    return fail(Code::kInvalid, "REQUEST_INVALID",
                "the id of an object has 16 bytes, this one " + std::to_string(content.size()));
  }
  std::memcpy(id.data(), content.data(), id.size());
  return id;
}

std::string encode_chunk(uint64_t offset, std::string_view content) {
  std::string body = number_field('o', offset);
  append_field(body, 'k', ByteWriter().u32(crc32c(content)).data());
  append_field(body, 'd', content);
  return body;
}

Result<size_t> take_chunk(std::string_view body, uint64_t offset, std::span<char> out) {
  const auto damaged = [&](const std::string& what) {
    return fail(Code::kCorruption, "CHUNK_DAMAGED",
                "the chunk of an object at byte " + std::to_string(offset) + " is damaged: " + what);
  };
  const auto at = number_of(body, 'o');
  if (!at || *at != offset) return damaged("it is another one");
  const std::string_view content = find_field(body, 'd');
  if (content.empty() || content.size() > out.size())
    return damaged("it has " + std::to_string(content.size()) + " bytes, " + std::to_string(out.size()) +
                   " are missing");
  if (find_field(body, 'k') != ByteWriter().u32(crc32c(content)).data()) return damaged("its checksum is wrong");
  std::ranges::copy(content, out.begin());
  return content.size();
}

std::string error_body(const Status& status) {
  std::string body;
  append_field(body, 'r', status.reason());
  append_field(body, 'm', status.message());
  return body;
}

Status error_of(std::string_view body) {
  const std::string reason(find_field(body, 'r'));
  const Code code = reason == "OBJECT_UNKNOWN" ? Code::kNotFound
                    : reason == "OBJECT_LOST"  ? Code::kCorruption
                                               : Code::kUnavailable;
  return Status(code, reason.empty() ? "PEER_REFUSED" : reason, std::string(find_field(body, 'm')));
}

}  // namespace uccp::agent
