// Canonical encodings for keys, records and frames: fixed-width big endian where order matters, varints elsewhere.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace uccp {

class ByteWriter {
 public:
  ByteWriter& u8(uint8_t v);
  ByteWriter& u32(uint32_t v);     // big endian
  ByteWriter& u64(uint64_t v);     // big endian: sorts as a key
  ByteWriter& varint(uint64_t v);  // LEB128
  // Length as varint, then the bytes.
  ByteWriter& bytes(std::string_view v);
  // The bytes with 0x00 escaped as 0x00 0xff, ended by 0x00 0x01: sorts as a key part and is never a prefix of another.
  ByteWriter& key_part(std::string_view v);
  ByteWriter& raw(std::string_view v);

  const std::string& data() const { return out_; }
  std::string take() { return std::move(out_); }

 private:
  std::string out_;
};

// Reads what ByteWriter wrote. The first malformed field makes it fail for good; check ok() once at the end.
class ByteReader {
 public:
  explicit ByteReader(std::string_view in) : in_(in) {}

  uint8_t u8();
  uint32_t u32();
  uint64_t u64();
  uint64_t varint();
  std::string_view bytes();
  std::string key_part();
  std::string_view raw(size_t size);
  std::string_view rest();

  bool ok() const { return ok_; }
  bool at_end() const { return ok_ && in_.empty(); }
  size_t remaining() const { return in_.size(); }

 private:
  bool need(size_t size);

  std::string_view in_;
  bool ok_ = true;
};

// CRC-32C (Castagnoli), as in RFC 3720, of `data` following `seed`. Hardware where the CPU has SSE 4.2.
uint32_t crc32c(std::string_view data, uint32_t seed = 0);

std::string to_hex(std::string_view bytes);
// Errors: invalid for an odd length or another character than 0-9a-f.
Result<std::string> from_hex(std::string_view hex);
std::string to_base64(std::string_view bytes);
// Standard or URL alphabet, padding optional.
Result<std::string> from_base64(std::string_view text);
std::string to_base64url(std::string_view bytes);  // without padding

// True if `text` is well-formed UTF-8 (no surrogates, no overlong forms).
bool is_utf8(std::string_view text);

}  // namespace uccp
