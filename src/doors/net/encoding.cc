#include "doors/net/encoding.h"

#include <zlib.h>

#include <algorithm>

#include "base/check.h"

namespace uccp::doors {
namespace {

constexpr int kGzipWindow = 15 + 16;  // the largest window, with a gzip header
constexpr size_t kStep = 64 * 1024;

std::string_view trimmed(std::string_view text) {
  while (text.starts_with(' ')) text.remove_prefix(1);
  while (text.ends_with(' ')) text.remove_suffix(1);
  return text;
}

bool is_refused(std::string_view parameters) {
  const size_t q = parameters.find("q=");
  return q != std::string_view::npos && parameters.substr(q + 2).find_first_of("123456789") == std::string_view::npos;
}

}  // namespace

bool accepts_gzip(std::string_view header) {
  bool any = false;
  while (!header.empty()) {
    const size_t comma = header.find(',');
    const std::string_view item = header.substr(0, comma);
    header = comma == std::string_view::npos ? std::string_view() : header.substr(comma + 1);
    const size_t semicolon = item.find(';');
    const std::string_view name = trimmed(item.substr(0, semicolon));
    const bool refused = semicolon != std::string_view::npos && is_refused(item.substr(semicolon));
    if (name == "gzip" || name == "x-gzip") return !refused;
    if (name == "*" && !refused) any = true;
  }
  return any;
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
  if (out.size() > bytes_max) {
    return fail(Code::kInvalid, "REQUEST_TOO_LARGE",
                "the body has more than " + std::to_string(bytes_max) + " bytes when decompressed");
  }
  if (result != Z_STREAM_END || rest)
    return fail(Code::kInvalid, "ENCODING_INVALID", "the body is not gzip, as Content-Encoding says, or is cut off");
  return out;
}

}  // namespace uccp::doors
