#include "shm/pieces.h"

#include <lz4.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>

#include "base/bytes.h"
#include "base/check.h"

namespace uccp::shm {
namespace {

constexpr uint8_t kVersion = 1;
constexpr size_t kHeadBytes = 1 + 1 + 8 + 4;
// The fastest levels: who puts an object waits for what has to leave memory.
constexpr int kZstdLevel = 1;
constexpr int kGzipLevel = 1;
constexpr int kGzipWindowBits = 15 + 16;  // with the head and the end of a gzip file
// What is not smaller by so much is kept as it is.
constexpr size_t kWorthwhileDivisor = 8;

struct Deflate {
  z_stream stream{};
  bool ready = deflateInit2(&stream, kGzipLevel, Z_DEFLATED, kGzipWindowBits, 8, Z_DEFAULT_STRATEGY) == Z_OK;
  ~Deflate() { deflateEnd(&stream); }
};

struct Inflate {
  z_stream stream{};
  bool ready = inflateInit2(&stream, kGzipWindowBits) == Z_OK;
  ~Inflate() { inflateEnd(&stream); }
};

void feed(z_stream& stream, std::string_view in, char* out, size_t room) {
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(in.data()));
  stream.avail_in = static_cast<uInt>(in.size());
  stream.next_out = reinterpret_cast<Bytef*>(out);
  stream.avail_out = static_cast<uInt>(room);
}

// Bytes written; 0: it does not fit.
size_t compress(Compression how, std::string_view in, char* out, size_t room) {
  switch (how) {
    case Compression::kNone: break;
    case Compression::kLz4: {
      const int size = LZ4_compress_default(in.data(), out, static_cast<int>(in.size()), static_cast<int>(room));
      return size > 0 ? static_cast<size_t>(size) : 0;
    }
    case Compression::kZstd: {
      const size_t size = ZSTD_compress(out, room, in.data(), in.size(), kZstdLevel);
      return ZSTD_isError(size) ? 0 : size;
    }
    case Compression::kGzip: {
      Deflate deflater;
      feed(deflater.stream, in, out, room);
      if (deflater.ready && deflate(&deflater.stream, Z_FINISH) == Z_STREAM_END) return deflater.stream.total_out;
    }
  }
  return 0;
}

// Whether it is exactly `out.size()` bytes of content.
bool decompress(Compression how, std::string_view in, std::span<char> out) {
  switch (how) {
    case Compression::kNone:
      if (in.size() != out.size()) return false;
      std::ranges::copy(in, out.begin());
      return true;
    case Compression::kLz4:
      return LZ4_decompress_safe(in.data(), out.data(), static_cast<int>(in.size()), static_cast<int>(out.size())) ==
             static_cast<int>(out.size());
    case Compression::kZstd: return ZSTD_decompress(out.data(), out.size(), in.data(), in.size()) == out.size();
    case Compression::kGzip: {
      Inflate inflater;
      feed(inflater.stream, in, out.data(), out.size());
      return inflater.ready && inflate(&inflater.stream, Z_FINISH) == Z_STREAM_END &&
             inflater.stream.total_out == out.size();
    }
  }
  return false;
}

std::string head_of(Compression how, uint64_t number, size_t size) {
  return ByteWriter().u8(kVersion).u8(static_cast<uint8_t>(how)).u64(number).u32(static_cast<uint32_t>(size)).take();
}

std::string bound_to(std::string_view head, const ObjectId& id, uint32_t index) {
  return ByteWriter().raw(head).raw({reinterpret_cast<const char*>(id.data()), id.size()}).u32(index).take();
}

}  // namespace

std::optional<Compression> parse_compression(std::string_view name) {
  constexpr std::string_view kNames[] = {"none", "lz4", "zstd", "gzip"};
  const auto* const found = std::ranges::find(kNames, name);
  if (found == std::end(kNames)) return std::nullopt;
  return static_cast<Compression>(found - std::begin(kNames));
}

std::string Pieces::seal(const ObjectId& id, uint32_t index, std::string_view content) {
  UCCP_CHECK(content.size() <= kPieceBytes, "a piece is not larger");
  std::string packed(content.size() - content.size() / kWorthwhileDivisor, '\0');
  const size_t size = compress(compression_, content, packed.data(), packed.size());
  const Compression how = size > 0 ? compression_ : Compression::kNone;
  const std::string head = head_of(how, next_number_, content.size());
  const std::string_view plain = size > 0 ? std::string_view(packed).substr(0, size) : content;
  return head + cipher_.seal(next_number_++, bound_to(head, id, index), plain);
}

Status Pieces::open(const ObjectId& id, uint32_t index, std::string_view sealed, std::span<char> out) const {
  const auto damaged = [&](const char* what) {
    return Status(Code::kCorruption, "PIECE_DAMAGED", "piece " + std::to_string(index) + " is damaged: " + what);
  };
  ByteReader in(sealed.substr(0, kHeadBytes));
  const uint8_t version = in.u8(), compression = in.u8();
  const uint64_t number = in.u64();
  const uint32_t size = in.u32();
  if (!in.at_end() || version != kVersion || compression > static_cast<uint8_t>(Compression::kGzip))
    return damaged("it has no head of version 1");
  if (size != out.size()) return damaged("its content has another size");
  const auto packed =
      cipher_.open(number, bound_to(sealed.substr(0, kHeadBytes), id, index), sealed.substr(kHeadBytes));
  if (!packed) return damaged("it is not as it was written");
  if (!decompress(static_cast<Compression>(compression), *packed, out)) return damaged("it cannot be unpacked");
  return {};
}

}  // namespace uccp::shm
