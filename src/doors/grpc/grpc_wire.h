// gRPC over HTTP/2, as far as it is not HTTP/2: messages in a stream of bytes, time limits, and the status in trailers.
// https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace uccp::doors {

// In front of each message: whether it is compressed, and its size, big endian.
inline constexpr size_t kMessageHeadBytes = 5;
void put_message_head(uint8_t* to, size_t message_bytes);

enum class MessageEncoding : uint8_t { kIdentity, kGzip };

// Finds the messages in the bytes of a stream.
class MessageReader {
 public:
  // Longer messages are an error before their bytes are taken.
  explicit MessageReader(size_t bytes_max) : bytes_max_(bytes_max) {}
  void set_encoding(MessageEncoding encoding) { encoding_ = encoding; }

  // Calls `on_message` for each message that is complete; it may answer false to hear no more. Errors: invalid
  // REQUEST_TOO_LARGE, ENCODING_INVALID or MESSAGE_MALFORMED; nothing may be fed afterwards.
  Status feed(std::string_view bytes, const std::function<bool(std::string message)>& on_message);
  // Bytes of a message that is not complete.
  size_t held_bytes() const { return held_.size(); }

 private:
  Result<std::string> decoded(std::string_view message) const;

  const size_t bytes_max_;
  MessageEncoding encoding_ = MessageEncoding::kIdentity;
  std::string held_;  // the head included
};

// "grpc-timeout", in microseconds; nothing if it is malformed. At least 1.
std::optional<int64_t> parse_timeout_us(std::string_view text);

using GrpcHeaders = std::vector<std::pair<std::string, std::string>>;
// What ends a stream: grpc-status, grpc-message, grpc-status-details-bin. Cut so that clients take it, which is at 8
// KiB.
void add_status(GrpcHeaders& headers, const Status& status);
// The same for an API that has codes and texts of its own, without details.
void add_plain_status(GrpcHeaders& headers, int grpc_code, std::string_view message);

}  // namespace uccp::doors
