// gzip and brotli of bodies.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace uccp::doors {

// Bodies up to this size are not worth it.
inline constexpr size_t kEncodedBytesMin = 1024;

enum class Encoding : uint8_t { kNone, kGzip, kBrotli };
// As in Content-Encoding; empty: kNone.
std::string_view encoding_name(Encoding encoding);

// What an Accept-Encoding header likes most of these (RFC 9110, 12.5.3); brotli before gzip where it does not say.
Encoding accepted_encoding(std::string_view accept_encoding);
// What a Content-Encoding header names. Errors: invalid MEDIA_TYPE_UNSUPPORTED.
Result<Encoding> content_encoding(std::string_view name);
std::string encode(Encoding encoding, std::string data);
// As gunzip() and unbrotli().
Result<std::string> decode(Encoding encoding, std::string data, size_t bytes_max);
// Fast rather than small.
std::string gzip(std::string_view data);
// Stops at `bytes_max`, however much more there would be. Errors: invalid ENCODING_INVALID or REQUEST_TOO_LARGE.
Result<std::string> gunzip(std::string_view data, size_t bytes_max);
// Fast rather than small, and still smaller than gzip.
std::string brotli(std::string_view data);
Result<std::string> unbrotli(std::string_view data, size_t bytes_max);

}  // namespace uccp::doors
