#include "call/json_codec_text.h"

#include <fmt/format.h>

#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/bytes.h"
#include "base/json.h"
#include "call/wire.h"

namespace uccp::call {
namespace {

constexpr uint64_t kExactMax = 1ull << 53;  // integers up to here are exact as JSON numbers

uint64_t zigzag(int64_t value) { return static_cast<uint64_t>(value) << 1 ^ static_cast<uint64_t>(value >> 63); }
int64_t unzigzag(uint64_t value) { return static_cast<int64_t>((value >> 1) ^ (0 - (value & 1))); }

bool is_signed(Kind kind) { return kind >= Kind::kInt32 && kind <= Kind::kSfixed64; }
bool is_64(Kind kind) {
  return (kind >= Kind::kInt64 && kind <= Kind::kSfixed64) || kind == Kind::kUint64 || kind == Kind::kFixed64;
}

int64_t to_int(Kind kind, uint64_t bits) {
  switch (kind) {
    case Kind::kInt32:
    case Kind::kEnum:
    case Kind::kSfixed32: return static_cast<int32_t>(bits);
    case Kind::kSint32: return static_cast<int32_t>(unzigzag(bits & 0xffffffff));
    case Kind::kSint64: return unzigzag(bits);
    default: return static_cast<int64_t>(bits);
  }
}

uint64_t to_uint(Kind kind, uint64_t bits) { return kind == Kind::kUint32 ? bits & 0xffffffff : bits; }

double to_float(Kind kind, uint64_t bits) {
  return kind == Kind::kFloat ? std::bit_cast<float>(static_cast<uint32_t>(bits)) : std::bit_cast<double>(bits);
}

template <typename T>
void append_number(std::string& out, T value) {
  char buffer[32];
  out.append(buffer, std::to_chars(buffer, buffer + sizeof(buffer), value).ptr);
}

}  // namespace

void put_scalar(std::string& out, Kind kind, uint64_t bits) {
  switch (wire_type(kind)) {
    case WireType::kFixed32: put_fixed32(out, static_cast<uint32_t>(bits)); return;
    case WireType::kFixed64: put_fixed64(out, bits); return;
    default: put_varint(out, bits);
  }
}

void append_scalar_text(const FieldPlan& field, uint64_t bits, std::string& out) {
  const Kind kind = field.kind;
  if (kind == Kind::kBool) {
    out.append(bits != 0 ? "true" : "false");
  } else if (kind == Kind::kEnum) {
    const auto number = static_cast<int32_t>(bits);
    const EnumValue* value = field.enumeration->by_number(number);
    value != nullptr ? void(out.append(value->name)) : append_number(out, number);
  } else if (kind == Kind::kFloat || kind == Kind::kDouble) {
    const double value = to_float(kind, bits);
    if (std::isnan(value)) {
      out.append("NaN");
    } else if (std::isinf(value)) {
      out.append(value > 0 ? "Infinity" : "-Infinity");
    } else if (kind == Kind::kFloat) {
      append_number(out, static_cast<float>(value));
    } else {
      append_number(out, value);
    }
  } else if (is_signed(kind)) {
    append_number(out, to_int(kind, bits));
  } else {
    append_number(out, to_uint(kind, bits));
  }
}

bool quoted_in_json(const FieldPlan& field, uint64_t bits) {
  if (field.kind == Kind::kEnum) return field.enumeration->by_number(static_cast<int32_t>(bits)) != nullptr;
  if (field.kind == Kind::kFloat || field.kind == Kind::kDouble) return !std::isfinite(to_float(field.kind, bits));
  if (!is_64(field.kind)) return false;
  if (!field.json_number) return true;
  if (!is_signed(field.kind)) return bits > kExactMax;
  const int64_t value = to_int(field.kind, bits);
  return value > static_cast<int64_t>(kExactMax) || value < -static_cast<int64_t>(kExactMax);
}

double to_double(Kind kind, uint64_t bits) {
  if (kind == Kind::kFloat || kind == Kind::kDouble) return to_float(kind, bits);
  return is_signed(kind) ? static_cast<double>(to_int(kind, bits)) : static_cast<double>(to_uint(kind, bits));
}

bool is_zero(Kind kind, uint64_t bits) {
  // Negative zero is a value of its own: it has bits.
  return wire_type(kind) == WireType::kVarint && kind != Kind::kBool && !is_64(kind) ? (bits & 0xffffffff) == 0
                                                                                     : bits == 0;
}

std::string integer_to_bits(const FieldPlan& field, bool negative, uint64_t magnitude, uint64_t& bits) {
  if (magnitude == 0) negative = false;
  if (!is_signed(field.kind)) {
    if (negative) return "must not be negative";
    const uint64_t most = is_64(field.kind) ? UINT64_MAX : UINT32_MAX;
    if (magnitude > most) return fmt::format("must be at most {}", most);
    bits = magnitude;
    return {};
  }
  const uint64_t most = is_64(field.kind) ? static_cast<uint64_t>(INT64_MAX) : static_cast<uint64_t>(INT32_MAX);
  if (magnitude > most + (negative ? 1 : 0)) return fmt::format("must be from -{} to {}", most + 1, most);
  const auto value = static_cast<int64_t>(negative ? 0 - magnitude : magnitude);
  switch (field.kind) {
    case Kind::kSint32: bits = zigzag(value) & 0xffffffff; break;
    case Kind::kSint64: bits = zigzag(value); break;
    case Kind::kSfixed32: bits = static_cast<uint32_t>(value); break;
    default: bits = static_cast<uint64_t>(value);
  }
  return {};
}

std::string double_to_bits(const FieldPlan& field, double value, uint64_t& bits) {
  if (field.kind == Kind::kDouble) {
    bits = std::bit_cast<uint64_t>(value);
    return {};
  }
  if (field.kind == Kind::kFloat) {
    if (std::isfinite(value) && std::fabs(value) > std::numeric_limits<float>::max()) return "is too large";
    bits = std::bit_cast<uint32_t>(static_cast<float>(value));
    return {};
  }
  // Whole numbers written as 1.0 or 1e3.
  if (std::trunc(value) != value) return "must be a whole number";
  if (std::fabs(value) >= 18446744073709551616.0) return "is out of range";
  return integer_to_bits(field, value < 0, static_cast<uint64_t>(std::fabs(value)), bits);
}

std::string enum_to_bits(const FieldPlan& field, std::string_view name, uint64_t& bits) {
  if (const EnumValue* value = field.enumeration->by_name(name)) {
    bits = static_cast<uint64_t>(static_cast<int64_t>(value->number));
    return {};
  }
  return "must be one of " + field.enumeration->names();
}

std::string text_to_bits(const FieldPlan& field, std::string_view text, uint64_t& bits) {
  switch (field.kind) {
    case Kind::kBool:
      if (text != "true" && text != "false") return "must be true or false";
      bits = text == "true" ? 1 : 0;
      return {};
    case Kind::kEnum: return enum_to_bits(field, text, bits);
    case Kind::kFloat:
    case Kind::kDouble: {
      if (text == "NaN") return double_to_bits(field, std::numeric_limits<double>::quiet_NaN(), bits);
      if (text == "Infinity") return double_to_bits(field, std::numeric_limits<double>::infinity(), bits);
      if (text == "-Infinity") return double_to_bits(field, -std::numeric_limits<double>::infinity(), bits);
      double value = 0;
      const bool plain = text.find_first_not_of("0123456789+-.eE") == std::string_view::npos;
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
      if (!plain || error != std::errc() || end != text.data() + text.size()) return "must be a number";
      return double_to_bits(field, value, bits);
    }
    default: break;
  }
  if (field.byte_size) {
    const auto size = parse_byte_size(text);
    if (!size) return "must be a size in bytes such as 512, 10k, 64Mi or 1.5Gi";
    return integer_to_bits(field, false, *size, bits);
  }
  const bool negative = text.starts_with('-');
  uint64_t magnitude = 0;
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data() + (negative ? 1 : 0), last, magnitude);
  if (end != last || error == std::errc::invalid_argument) return "must be a whole number";
  if (error != std::errc()) return "is out of range";
  return integer_to_bits(field, negative, magnitude, bits);
}

bool is_simple(std::string_view text) {
  constexpr uint64_t kOnes = 0x0101010101010101, kHigh = 0x8080808080808080;
  const auto has_zero = [](uint64_t v) { return (v - kOnes) & ~v & kHigh; };
  size_t i = 0;
  for (; i + 8 <= text.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, text.data() + i, 8);
    // High bit set, below 0x20, a quote or a backslash in one of the bytes.
    const uint64_t low = (word - kOnes * 0x20) & ~word & kHigh;
    if ((word & kHigh) | low | has_zero(word ^ kOnes * '"') | has_zero(word ^ kOnes * '\\')) return false;
  }
  for (; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c < 0x20 || c >= 0x80 || c == '"' || c == '\\') return false;
  }
  return true;
}

void append_quoted(std::string& out, std::string_view text) {
  if (!is_simple(text)) return append_json_string(out, text);
  out.push_back('"');
  out.append(text);
  out.push_back('"');
}

std::string excerpt(std::string_view text) {
  constexpr size_t kBytes = 40;
  std::string quoted;
  size_t size = std::min(text.size(), kBytes);
  while (size > 0 && size < text.size() && (static_cast<unsigned char>(text[size]) & 0xc0) == 0x80) --size;
  append_quoted(quoted, text.substr(0, size));
  if (size < text.size()) quoted.append("...");
  return quoted;
}

}  // namespace uccp::call
