#include "doors/grpc/grpc_wire.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "base/bytes.h"
#include "call/error_json.h"
#include "doors/net/encoding.h"

namespace uccp::doors {
namespace {

// Base64 makes details 4/3 larger, and clients refuse more than 8 KiB of trailers.
constexpr size_t kDetailsMax = 4500;
constexpr size_t kMessageMax = 1000;

std::string cut_at_character(std::string text, size_t bytes_max) {
  if (text.size() <= bytes_max) return text;
  size_t end = bytes_max;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  text.resize(end);
  return text;
}

// grpc-message: printable ASCII but '%' as it is, all else as %XX.
std::string percent_encoded(std::string_view text) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f && c != '%') {
      out.push_back(c);
    } else {
      out.push_back('%');
      out.push_back(kHex[byte >> 4]);
      out.push_back(kHex[byte & 15]);
    }
  }
  return out;
}

std::string details_of(const Status& status, const std::string& message) {
  std::string details = call::to_rpc_status(status);
  for (size_t kept = status.detail().fields.size(); details.size() > kDetailsMax;) {
    Status smaller(status.code(), status.reason(), message);
    for (size_t i = 0; i < kept; ++i) {
      const FieldViolation& field = status.detail().fields[i];
      smaller = std::move(smaller).with_field(field.field, field.description.substr(0, 200));
    }
    if (status.detail().retry_after_ms > 0)
      smaller = std::move(smaller).with_retry_after_ms(status.detail().retry_after_ms);
    details = call::to_rpc_status(smaller);
    if (kept == 0) break;
    kept /= 2;
  }
  return details;
}

}  // namespace

void put_message_head(uint8_t* to, size_t message_bytes) {
  to[0] = 0;
  for (int i = 0; i < 4; ++i) to[1 + i] = static_cast<uint8_t>(message_bytes >> (24 - 8 * i));
}

Status MessageReader::feed(std::string_view bytes, const std::function<bool(std::string message)>& on_message) {
  while (true) {
    // Mostly a message comes in one piece, which is then copied once.
    std::string_view rest = bytes;
    if (!held_.empty()) {
      if (held_.size() < kMessageHeadBytes) {
        const size_t taken = std::min(bytes.size(), kMessageHeadBytes - held_.size());
        held_.append(bytes.substr(0, taken));
        bytes.remove_prefix(taken);
        if (held_.size() < kMessageHeadBytes) return Status::ok();
      }
      rest = held_;
    }
    if (rest.size() < kMessageHeadBytes) {
      held_.assign(rest);
      return Status::ok();
    }
    uint8_t head[kMessageHeadBytes];
    std::memcpy(head, rest.data(), sizeof head);
    if (head[0] > 1) return Status(Code::kInvalid, "MESSAGE_MALFORMED", "a message begins with neither 0 nor 1");
    const size_t size = size_t{head[1]} << 24 | size_t{head[2]} << 16 | size_t{head[3]} << 8 | head[4];
    if (size > bytes_max_) {
      return Status(
          Code::kInvalid, "REQUEST_TOO_LARGE",
          "a message of " + std::to_string(size) + " bytes; at most " + std::to_string(bytes_max_) + " are taken");
    }
    const size_t whole = kMessageHeadBytes + size;
    if (!held_.empty()) {
      const size_t taken = std::min(bytes.size(), whole - held_.size());
      held_.append(bytes.substr(0, taken));
      bytes.remove_prefix(taken);
      if (held_.size() < whole) return Status::ok();
      rest = held_;
    } else if (rest.size() < whole) {
      held_.assign(rest);
      return Status::ok();
    } else {
      bytes.remove_prefix(whole);
    }
    std::string message(rest.substr(kMessageHeadBytes, size));
    held_.clear();
    if (head[0] == 1) {
      UCCP_TRY(message, decoded(message));
    }
    if (!on_message(std::move(message)) || bytes.empty()) return Status::ok();
  }
}

Result<std::string> MessageReader::decoded(std::string_view message) const {
  if (encoding_ == MessageEncoding::kGzip) return gunzip(message, bytes_max_);
  return fail(Code::kInvalid, "ENCODING_INVALID", "a message is compressed and grpc-encoding does not say how");
}

std::optional<int64_t> parse_timeout_us(std::string_view text) {
  if (text.size() < 2 || text.size() > 9) return std::nullopt;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size() - 1, value);
  if (error != std::errc() || end != text.data() + text.size() - 1 || value < 0) return std::nullopt;
  int64_t us = 0;
  switch (text.back()) {
    case 'H': us = value * 3'600'000'000; break;
    case 'M': us = value * 60'000'000; break;
    case 'S': us = value * 1'000'000; break;
    case 'm': us = value * 1'000; break;
    case 'u': us = value; break;
    case 'n': us = value / 1'000; break;
    default: return std::nullopt;
  }
  return std::max<int64_t>(us, 1);
}

void add_plain_status(GrpcHeaders& headers, int grpc_code, std::string_view message) {
  headers.emplace_back("grpc-status", std::to_string(grpc_code));
  if (grpc_code != 0)
    headers.emplace_back("grpc-message", percent_encoded(cut_at_character(std::string(message), kMessageMax)));
}

void add_status(GrpcHeaders& headers, const Status& status) {
  add_plain_status(headers, code_info(status.code()).grpc, status.message());
  if (status.is_ok()) return;
  const std::string message = cut_at_character(status.message(), kMessageMax);
  std::string details = to_base64(details_of(status, message));
  while (details.ends_with('=')) details.pop_back();
  headers.emplace_back("grpc-status-details-bin", std::move(details));
}

}  // namespace uccp::doors
