// Compression of what is stored or sent in one piece: entries of a log, chunks of a snapshot.
//
// A packed piece is its encoding, which its owner keeps in a field of its own format, and bytes:
//   raw          the piece itself
//   lz4, zstd    length of the piece (u32, big endian), compressed bytes
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/log_types.h"
#include "base/metrics.h"
#include "base/status.h"

namespace uccp::storage {

enum class Encoding : uint8_t { kRaw = 0, kLz4 = 1, kZstd = 2 };

// "none", "lz4" or "zstd"; nullopt for anything else.
std::optional<Encoding> parse_encoding(std::string_view name);

struct CompressionOptions {
  Encoding encoding = Encoding::kRaw;
  // Smaller pieces stay raw. So do those that would not become smaller by at least an eighth.
  uint64_t above_bytes = 4096;
};

// Larger pieces stay raw, and a packed one that says it was larger is damaged.
inline constexpr uint64_t kUnpackedBytesMax = 256u << 20;

// One thread at a time.
class Packer {
 public:
  explicit Packer(CompressionOptions options = {}, Counter* saved_bytes = nullptr);
  ~Packer();
  Packer(Packer&&) noexcept;

  // Appends the packed piece to `out` and returns its encoding.
  Encoding pack(std::string_view piece, std::string& out);
  // The data of an entry: in the form in which it came, if it has one.
  Encoding pack(const Entry& entry, std::string& out);

 private:
  struct Zstd;
  size_t compress(std::string_view piece, char* out, size_t capacity);

  CompressionOptions options_;
  Counter* saved_bytes_;
  std::unique_ptr<Zstd> zstd_;
};

// nullopt for anything that pack() did not write.
std::optional<std::string> unpack(Encoding encoding, std::string_view packed);

// The length of a piece when unpacked, as it says itself; 0 for bytes that say nothing.
uint64_t unpacked_bytes(Encoding encoding, std::string_view packed);

// Counts what compression saved; `what` is "log", "peers" or "snapshot".
Counter& saved_bytes_counter(MetricsRegistry& metrics, const std::string& what);

}  // namespace uccp::storage
