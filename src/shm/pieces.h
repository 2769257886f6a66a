// Content of objects as it is kept outside of memory: in pieces, each compressed if that pays, and encrypted with a key
// that only this process has (docs/formats/spill.md). So what is kept can be read by nobody else, and not after it has
// ended; and a piece that was changed, or is another one's, is found out.
// Thread: sealing one at a time, opening any.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/aead.h"
#include "base/status.h"
#include "shm/layout.h"

namespace uccp::shm {

enum class Compression : uint8_t { kNone = 0, kLz4 = 1, kZstd = 2, kGzip = 3 };

// "none", "lz4", "zstd", "gzip"; nothing if it is none of them.
std::optional<Compression> parse_compression(std::string_view name);

// A piece has at most so many bytes of content, and is not larger than them by more than kPieceExtraBytes.
inline constexpr size_t kPieceBytes = 4u << 20;
inline constexpr size_t kPieceExtraBytes = 64;

class Pieces {
 public:
  // The key must be of this use alone.
  Pieces(SecretKey key, Compression compression) : cipher_(key), compression_(compression) {}

  // Requires at most kPieceBytes of content.
  std::string seal(const ObjectId& id, uint32_t index, std::string_view content);
  // `out` has the size that the content had. Errors: corruption PIECE_DAMAGED.
  Status open(const ObjectId& id, uint32_t index, std::string_view sealed, std::span<char> out) const;

 private:
  Aead cipher_;
  Compression compression_;
  uint64_t next_number_ = 1;
};

// Parts of a content that are a piece each, from the first on.
constexpr uint64_t pieces_of(uint64_t size) { return (size + kPieceBytes - 1) / kPieceBytes; }

}  // namespace uccp::shm
