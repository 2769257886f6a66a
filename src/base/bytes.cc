#include "base/bytes.h"

#include <nmmintrin.h>

#include <array>
#include <cstring>

namespace uccp {

namespace {

// What does not fit into the string object mostly grows on: it gets room at once, not in steps.
constexpr size_t kFirstBytes = 96;

void make_room(std::string& out, size_t bytes) {
  const size_t needed = out.size() + bytes;
  if (needed > out.capacity() && needed < kFirstBytes) out.reserve(kFirstBytes);
}

template <size_t kBytes>
void put_big_endian(std::string& out, uint64_t v) {
  char bytes[kBytes];
  for (size_t i = 0; i < kBytes; ++i) bytes[i] = static_cast<char>(v >> (8 * (kBytes - 1 - i)));
  make_room(out, kBytes);
  out.append(bytes, kBytes);
}

}  // namespace

ByteWriter& ByteWriter::u8(uint8_t v) {
  make_room(out_, 1);
  out_.push_back(static_cast<char>(v));
  return *this;
}

ByteWriter& ByteWriter::u32(uint32_t v) {
  put_big_endian<4>(out_, v);
  return *this;
}

ByteWriter& ByteWriter::u64(uint64_t v) {
  put_big_endian<8>(out_, v);
  return *this;
}

ByteWriter& ByteWriter::varint(uint64_t v) {
  char bytes[10];
  size_t count = 0;
  for (; v >= 0x80; v >>= 7) bytes[count++] = static_cast<char>(v | 0x80);
  bytes[count++] = static_cast<char>(v);
  make_room(out_, count);
  out_.append(bytes, count);
  return *this;
}

ByteWriter& ByteWriter::bytes(std::string_view v) { return varint(v.size()).raw(v); }

ByteWriter& ByteWriter::key_part(std::string_view v) {
  make_room(out_, v.size() + 2);
  for (size_t zero = v.find('\0'); zero != v.npos; zero = v.find('\0')) {
    out_.append(v.substr(0, zero + 1)).push_back('\xff');
    v.remove_prefix(zero + 1);
  }
  out_.append(v).append("\0\x01", 2);
  return *this;
}

ByteWriter& ByteWriter::raw(std::string_view v) {
  make_room(out_, v.size());
  out_.append(v);
  return *this;
}

bool ByteReader::need(size_t size) {
  if (!ok_ || in_.size() < size) {
    ok_ = false;
    return false;
  }
  return true;
}

uint8_t ByteReader::u8() {
  if (!need(1)) return 0;
  const auto v = static_cast<uint8_t>(in_[0]);
  in_.remove_prefix(1);
  return v;
}

uint32_t ByteReader::u32() {
  if (!need(4)) return 0;
  uint32_t v = 0;
  for (int i = 0; i < 4; ++i) v = (v << 8) | static_cast<uint8_t>(in_[i]);
  in_.remove_prefix(4);
  return v;
}

uint64_t ByteReader::u64() {
  if (!need(8)) return 0;
  uint64_t v = 0;
  for (int i = 0; i < 8; ++i) v = (v << 8) | static_cast<uint8_t>(in_[i]);
  in_.remove_prefix(8);
  return v;
}

uint64_t ByteReader::varint() {
  uint64_t v = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    if (!need(1)) return 0;
    const auto byte = static_cast<uint8_t>(in_[0]);
    in_.remove_prefix(1);
    if (shift == 63 && byte > 1) break;
    v |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return v;
  }
  ok_ = false;
  return 0;
}

std::string_view ByteReader::bytes() {
  const uint64_t size = varint();
  if (!ok_ || size > in_.size()) {
    ok_ = false;
    return {};
  }
  return raw(size);
}

std::string ByteReader::key_part() {
  std::string out;
  for (size_t i = 0; ok_ && i + 1 < in_.size(); ++i) {
    if (in_[i] != '\0') {
      out.push_back(in_[i]);
      continue;
    }
    const char next = in_[i + 1];
    if (next == '\x01') {
      in_.remove_prefix(i + 2);
      return out;
    }
    if (next != '\xff') break;
    out.push_back('\0');
    ++i;
  }
  ok_ = false;
  return {};
}

std::string_view ByteReader::raw(size_t size) {
  if (!need(size)) return {};
  const std::string_view v = in_.substr(0, size);
  in_.remove_prefix(size);
  return v;
}

std::string_view ByteReader::rest() { return raw(ok_ ? in_.size() : 0); }

namespace {

constexpr std::array<uint32_t, 256> make_crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? 0x82f63b78u : 0);
    table[i] = crc;
  }
  return table;
}

uint32_t crc32c_portable(std::string_view data, uint32_t crc) {
  static constexpr auto table = make_crc_table();
  for (char c : data) crc = (crc >> 8) ^ table[(crc ^ static_cast<uint8_t>(c)) & 0xff];
  return crc;
}

__attribute__((target("sse4.2"))) uint32_t crc32c_sse42(std::string_view data, uint32_t crc) {
  uint64_t wide = crc;
  size_t i = 0;
  for (; i + 8 <= data.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, data.data() + i, 8);
    wide = _mm_crc32_u64(wide, word);
  }
  crc = static_cast<uint32_t>(wide);
  for (; i < data.size(); ++i) crc = _mm_crc32_u8(crc, static_cast<uint8_t>(data[i]));
  return crc;
}

}  // namespace

uint32_t crc32c(std::string_view data, uint32_t seed) {
  static const bool hardware = __builtin_cpu_supports("sse4.2");
  const uint32_t crc = ~seed;
  return ~(hardware ? crc32c_sse42(data, crc) : crc32c_portable(data, crc));
}

std::string to_hex(std::string_view bytes) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string out;
  out.reserve(bytes.size() * 2);
  for (char c : bytes) {
    out.push_back(digits[static_cast<uint8_t>(c) >> 4]);
    out.push_back(digits[static_cast<uint8_t>(c) & 15]);
  }
  return out;
}

Result<std::string> from_hex(std::string_view hex) {
  auto digit = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; };
  if (hex.size() % 2 != 0) return fail(Code::kInvalid, "HEX_INVALID", "a hex string has an even number of digits");
  std::string out;
  for (size_t i = 0; i < hex.size(); i += 2) {
    const int high = digit(hex[i]);
    const int low = digit(hex[i + 1]);
    if (high < 0 || low < 0) return fail(Code::kInvalid, "HEX_INVALID", "hex digits are 0-9 and a-f");
    out.push_back(static_cast<char>(high << 4 | low));
  }
  return out;
}

namespace {

std::string encode_base64(std::string_view bytes, const char* alphabet, bool padded) {
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t left = bytes.size() - i;
    uint32_t group = static_cast<uint8_t>(bytes[i]) << 16;
    if (left > 1) group |= static_cast<uint8_t>(bytes[i + 1]) << 8;
    if (left > 2) group |= static_cast<uint8_t>(bytes[i + 2]);
    out.push_back(alphabet[group >> 18]);
    out.push_back(alphabet[(group >> 12) & 63]);
    if (left > 1) out.push_back(alphabet[(group >> 6) & 63]);
    if (left > 2) out.push_back(alphabet[group & 63]);
    if (padded) out.append(left >= 3 ? 0 : 3 - left, '=');
  }
  return out;
}

}  // namespace

std::string to_base64(std::string_view bytes) {
  return encode_base64(bytes, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", true);
}

std::string to_base64url(std::string_view bytes) {
  return encode_base64(bytes, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", false);
}

Result<std::string> from_base64(std::string_view text) {
  while (!text.empty() && text.back() == '=') text.remove_suffix(1);
  if (text.size() % 4 == 1) return fail(Code::kInvalid, "BASE64_INVALID", "the base64 text is cut off");
  auto value = [](char c) -> int {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    if (c == '+' || c == '-') return 62;
    if (c == '/' || c == '_') return 63;
    return -1;
  };
  std::string out;
  out.reserve(text.size() * 3 / 4);
  uint32_t group = 0;
  int bits = 0;
  for (char c : text) {
    const int v = value(c);
    if (v < 0) return fail(Code::kInvalid, "BASE64_INVALID", "a character is not of the base64 alphabet");
    group = (group << 6) | static_cast<uint32_t>(v);
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      out.push_back(static_cast<char>(group >> bits));
    }
  }
  return out;
}

bool is_utf8(std::string_view text) {
  size_t i = 0;
  const auto at = [&](size_t k) { return static_cast<uint8_t>(text[k]); };
  while (i < text.size()) {
    const uint8_t c = at(i);
    if (c < 0x80) {
      ++i;
      continue;
    }
    const size_t size = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
    if (c < 0xc2 || c > 0xf4 || i + size > text.size()) return false;
    for (size_t k = 1; k < size; ++k) {
      if ((at(i + k) & 0xc0) != 0x80) return false;
    }
    const uint8_t second = at(i + 1);
    if ((c == 0xe0 && second < 0xa0) || (c == 0xed && second > 0x9f) || (c == 0xf0 && second < 0x90) ||
        (c == 0xf4 && second > 0x8f)) {
      return false;
    }
    i += size;
  }
  return true;
}

}  // namespace uccp
