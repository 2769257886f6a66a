// What agents say to each other about shared objects (docs/design/objects.md): where an object is, frames, and chunks
// of content. A frame is its length (u32 big endian, of what follows), its kind, and a body of fields as between the
// agent and its function workers.
//
// Pure functions; callable from any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "shm/layout.h"

namespace uccp::agent {

// How another agent gets the objects of a namespace from one that has them. It holds a secret: who has it may read.
struct ObjectLocation {
  std::string address;    // HOST:PORT
  std::string authority;  // PEM: which the certificate of its door is signed by
  std::string grant;
  std::string zone;

  bool operator==(const ObjectLocation&) const = default;
};

inline constexpr size_t kLocationBytesMax = 4096;
std::string encode(const ObjectLocation& location);
// Errors: invalid LOCATION_INVALID.
Result<ObjectLocation> parse_location(std::string_view bytes);

struct PeerFrame {
  char kind = 0;
  std::string body;
};

inline constexpr size_t kFrameHeadBytes = 5;
inline constexpr size_t kChunkBytes = 1u << 20;
inline constexpr size_t kFrameBytesMax = kChunkBytes + 4096;

std::string encode_frame(char kind, std::string_view body);
// The kind and the size of the body that follows a head. Errors: corruption FRAME_INVALID.
struct FrameHead {
  char kind = 0;
  size_t body_bytes = 0;
};
Result<FrameHead> parse_frame_head(std::string_view head);

// All fields of a body, as far as they are whole.
std::vector<std::pair<char, std::string_view>> fields_of(std::string_view body);

// A field of a number; nothing if it is not there or has not 8 bytes.
std::string number_field(char tag, uint64_t number);
Result<uint64_t> number_of(std::string_view body, char tag);
// Errors: invalid REQUEST_INVALID.
Result<shm::ObjectId> id_of(std::string_view content);

// A part of an object's content, with its checksum.
std::string encode_chunk(uint64_t offset, std::string_view content);
// Checks that it is the part that begins at `offset` and puts it into `out`, which is what is left of the content;
// answers its size. Errors: corruption CHUNK_DAMAGED.
Result<size_t> take_chunk(std::string_view body, uint64_t offset, std::span<char> out);

// An error as a body, and back.
std::string error_body(const Status& status);
Status error_of(std::string_view body);

}  // namespace uccp::agent
