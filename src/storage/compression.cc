#include "storage/compression.h"

#include <lz4.h>
#include <zstd.h>

#include <algorithm>

#include "base/bytes.h"

namespace uccp::storage {
namespace {

constexpr size_t kLengthBytes = 4;
// The fastest level that still compresses text well: the thread that compresses also syncs the log.
constexpr int kZstdLevel = 1;
constexpr size_t kWorthwhileDivisor = 8;

}  // namespace

struct Packer::Zstd {
  ZSTD_CCtx* context = ZSTD_createCCtx();
  ~Zstd() { ZSTD_freeCCtx(context); }
};

std::optional<Encoding> parse_encoding(std::string_view name) {
  if (name == "none") return Encoding::kRaw;
  if (name == "lz4") return Encoding::kLz4;
  if (name == "zstd") return Encoding::kZstd;
  return std::nullopt;
}

Packer::Packer(CompressionOptions options, Counter* saved_bytes) : options_(options), saved_bytes_(saved_bytes) {
  if (options_.encoding == Encoding::kZstd) zstd_ = std::make_unique<Zstd>();
}
Packer::~Packer() = default;
Packer::Packer(Packer&&) noexcept = default;

// 0: it does not fit into `capacity`.
size_t Packer::compress(std::string_view piece, char* out, size_t capacity) {
  if (options_.encoding == Encoding::kLz4) {
    const int written =
        LZ4_compress_default(piece.data(), out, static_cast<int>(piece.size()), static_cast<int>(capacity));
    return written > 0 ? static_cast<size_t>(written) : 0;
  }
  const size_t written = ZSTD_compressCCtx(zstd_->context, out, capacity, piece.data(), piece.size(), kZstdLevel);
  return ZSTD_isError(written) ? 0 : written;
}

Encoding Packer::pack(std::string_view piece, std::string& out) {
  if (options_.encoding != Encoding::kRaw && piece.size() >= options_.above_bytes && piece.size() > kLengthBytes &&
      piece.size() <= kUnpackedBytesMax) {
    const size_t begin = out.size();
    const size_t capacity = piece.size() - piece.size() / kWorthwhileDivisor;
    out.append(ByteWriter().u32(static_cast<uint32_t>(piece.size())).data());
    out.resize(begin + kLengthBytes + capacity);
    const size_t written = compress(piece, out.data() + begin + kLengthBytes, capacity);
    out.resize(written > 0 ? begin + kLengthBytes + written : begin);
    if (written > 0) {
      if (saved_bytes_ != nullptr) saved_bytes_->add(piece.size() - written);
      return options_.encoding;
    }
  }
  out.append(piece);
  return Encoding::kRaw;
}

Encoding Packer::pack(const Entry& entry, std::string& out) {
  if (entry.packed == nullptr) return pack(entry.data, out);
  if (entry.packed->encoding == static_cast<uint8_t>(Encoding::kRaw)) {
    out.append(entry.data);
    return Encoding::kRaw;
  }
  out.append(entry.packed->bytes);
  if (saved_bytes_ != nullptr)
    saved_bytes_->add(entry.data.size() - std::min(entry.data.size(), entry.packed->bytes.size()));
  return static_cast<Encoding>(entry.packed->encoding);
}

uint64_t unpacked_bytes(Encoding encoding, std::string_view packed) {
  return encoding == Encoding::kRaw ? packed.size() : ByteReader(packed).u32();
}

std::optional<std::string> unpack(Encoding encoding, std::string_view packed) {
  if (encoding == Encoding::kRaw) return std::string(packed);
  ByteReader in(packed);
  const uint32_t size = in.u32();
  const std::string_view bytes = in.rest();
  if (!in.ok() || size > kUnpackedBytesMax) return std::nullopt;
  if (encoding == Encoding::kLz4) {
    // No lz4 block is smaller than a 255th of what it holds: a forged length asks for no more memory than that.
    if (size / 255 > bytes.size()) return std::nullopt;
    std::string piece(size, '\0');
    const int read =
        LZ4_decompress_safe(bytes.data(), piece.data(), static_cast<int>(bytes.size()), static_cast<int>(size));
    return read == static_cast<int>(size) ? std::optional(std::move(piece)) : std::nullopt;
  }
  if (encoding != Encoding::kZstd || ZSTD_getFrameContentSize(bytes.data(), bytes.size()) != size) return std::nullopt;
  std::string piece(size, '\0');
  const size_t read = ZSTD_decompress(piece.data(), piece.size(), bytes.data(), bytes.size());
  return !ZSTD_isError(read) && read == size ? std::optional(std::move(piece)) : std::nullopt;
}

Counter& saved_bytes_counter(MetricsRegistry& metrics, const std::string& what) {
  return metrics.counter("uccp_compression_saved_bytes_total", "Bytes that compression kept off disks and networks",
                         {{"what", what}});
}

}  // namespace uccp::storage
