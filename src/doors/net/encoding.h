// gzip of bodies. Private to this folder.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace uccp::doors {

// Bodies up to this size are not worth it.
inline constexpr size_t kGzipBytesMin = 1024;

// True if an Accept-Encoding header allows gzip.
bool accepts_gzip(std::string_view accept_encoding);
// Fast rather than small.
std::string gzip(std::string_view data);
// Stops at `bytes_max`, however much more there would be. Errors: invalid ENCODING_INVALID or REQUEST_TOO_LARGE.
Result<std::string> gunzip(std::string_view data, size_t bytes_max);

}  // namespace uccp::doors
