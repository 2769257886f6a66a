#include "doors/net/encoding.h"

#include <brotli/decode.h>
#include <brotli/encode.h>
#include <zlib.h>

#include <algorithm>
#include <charconv>
#include <memory>

#include "base/check.h"

namespace uccp::doors {
namespace {

constexpr int kGzipWindow = 15 + 16;  // the largest window, with a gzip header
constexpr size_t kStep = 64 * 1024;
// About as fast as the fastest gzip.
constexpr int kBrotliQuality = 3;

std::string_view trimmed(std::string_view text) {
  while (text.starts_with(' ')) text.remove_prefix(1);
  while (text.ends_with(' ')) text.remove_suffix(1);
  return text;
}

// Thousandths; what cannot be read counts as one, as if it were not there.
int quality_of(std::string_view parameters) {
  const size_t q = parameters.find("q=");
  if (q == std::string_view::npos) return 1000;
  double value = 1;
  const std::string_view text = parameters.substr(q + 2);
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  return parsed.ec == std::errc() ? static_cast<int>(std::clamp(value, 0.0, 1.0) * 1000) : 1000;
}

Status too_large(size_t bytes_max) {
  return Status(Code::kInvalid, "REQUEST_TOO_LARGE",
                "the body has more than " + std::to_string(bytes_max) + " bytes when decompressed");
}

}  // namespace

std::string_view encoding_name(Encoding encoding) {
  static constexpr std::string_view kNames[] = {"", "gzip", "br"};
  return kNames[static_cast<size_t>(encoding)];
}

Encoding accepted_encoding(std::string_view header) {
  int any = 0;
  int gzip_quality = -1, brotli_quality = -1;
  while (!header.empty()) {
    const size_t comma = header.find(',');
    const std::string_view item = header.substr(0, comma);
    header = comma == std::string_view::npos ? std::string_view() : header.substr(comma + 1);
    const size_t semicolon = item.find(';');
    const std::string_view name = trimmed(item.substr(0, semicolon));
    const int quality = semicolon == std::string_view::npos ? 1000 : quality_of(item.substr(semicolon));
    if (name == "gzip" || name == "x-gzip") gzip_quality = quality;
    else if (name == "br") brotli_quality = quality;
    else if (name == "*") any = quality;
  }
  if (gzip_quality < 0) gzip_quality = any;
  if (brotli_quality < 0) brotli_quality = any;
  if (gzip_quality == 0 && brotli_quality == 0) return Encoding::kNone;
  return brotli_quality >= gzip_quality ? Encoding::kBrotli : Encoding::kGzip;
}

Result<Encoding> content_encoding(std::string_view name) {
  if (name.empty() || name == "identity") return Encoding::kNone;
  if (name == "gzip" || name == "x-gzip") return Encoding::kGzip;
  if (name == "br") return Encoding::kBrotli;
  return fail(Code::kInvalid, "MEDIA_TYPE_UNSUPPORTED",
              "the content encoding '" + std::string(name.substr(0, 40)) +
                  "' is not taken; send gzip, br, or the body as it is");
}

std::string encode(Encoding encoding, std::string data) {
  return encoding == Encoding::kGzip ? gzip(data) : encoding == Encoding::kBrotli ? brotli(data) : data;
}

Result<std::string> decode(Encoding encoding, std::string data, size_t bytes_max) {
  if (encoding == Encoding::kNone) return data;
  return encoding == Encoding::kGzip ? gunzip(data, bytes_max) : unbrotli(data, bytes_max);
}

std::string gzip(std::string_view data) {
  z_stream stream{};
  UCCP_CHECK(deflateInit2(&stream, Z_BEST_SPEED, Z_DEFLATED, kGzipWindow, 8, Z_DEFAULT_STRATEGY) == Z_OK,
             "zlib can start");
  std::string out(deflateBound(&stream, static_cast<uLong>(data.size())), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(data.data()));
  stream.avail_in = static_cast<uInt>(data.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  UCCP_CHECK(deflate(&stream, Z_FINISH) == Z_STREAM_END, "the bound of zlib holds");
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

Result<std::string> gunzip(std::string_view data, size_t bytes_max) {
  z_stream stream{};
  UCCP_CHECK(inflateInit2(&stream, kGzipWindow) == Z_OK, "zlib can start");
  std::string out;
  int result = Z_OK;
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(data.data()));
  stream.avail_in = static_cast<uInt>(data.size());
  while (result == Z_OK && out.size() <= bytes_max) {
    const size_t had = out.size();
    out.resize(had + std::min(kStep, bytes_max + 1 - had));
    stream.next_out = reinterpret_cast<Bytef*>(out.data() + had);
    stream.avail_out = static_cast<uInt>(out.size() - had);
    result = inflate(&stream, Z_NO_FLUSH);
    out.resize(out.size() - stream.avail_out);
  }
  const bool rest = stream.avail_in > 0;
  inflateEnd(&stream);
  if (out.size() > bytes_max) return fail(too_large(bytes_max));
  if (result != Z_STREAM_END || rest)
    return fail(Code::kInvalid, "ENCODING_INVALID", "the body is not gzip, as Content-Encoding says, or is cut off");
  return out;
}

std::string brotli(std::string_view data) {
  std::string out(BrotliEncoderMaxCompressedSize(data.size()), '\0');
  size_t size = out.size();
  const bool done = BrotliEncoderCompress(kBrotliQuality, BROTLI_DEFAULT_WINDOW, BROTLI_MODE_TEXT, data.size(),
                                          reinterpret_cast<const uint8_t*>(data.data()), &size,
                                          reinterpret_cast<uint8_t*>(out.data())) == BROTLI_TRUE;
  UCCP_CHECK(done, "the bound of brotli holds");
  out.resize(size);
  return out;
}

Result<std::string> unbrotli(std::string_view data, size_t bytes_max) {
  const std::unique_ptr<BrotliDecoderState, decltype(&BrotliDecoderDestroyInstance)> state(
      BrotliDecoderCreateInstance(nullptr, nullptr, nullptr), BrotliDecoderDestroyInstance);
  UCCP_CHECK(state != nullptr, "brotli can start");
  const auto* in = reinterpret_cast<const uint8_t*>(data.data());
  size_t left = data.size();
  std::string out;
  BrotliDecoderResult result = BROTLI_DECODER_RESULT_NEEDS_MORE_OUTPUT;
  while (result == BROTLI_DECODER_RESULT_NEEDS_MORE_OUTPUT && out.size() <= bytes_max) {
    const size_t had = out.size();
    size_t room = std::min(kStep, bytes_max + 1 - had);
    out.resize(had + room);
    auto* to = reinterpret_cast<uint8_t*>(out.data() + had);
    result = BrotliDecoderDecompressStream(state.get(), &left, &in, &room, &to, nullptr);
    out.resize(out.size() - room);
  }
  if (out.size() > bytes_max) return fail(too_large(bytes_max));
  if (result != BROTLI_DECODER_RESULT_SUCCESS || left > 0)
    return fail(Code::kInvalid, "ENCODING_INVALID", "the body is not brotli, as Content-Encoding says, or is cut off");
  return out;
}

}  // namespace uccp::doors
