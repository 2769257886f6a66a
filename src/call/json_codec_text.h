// Scalars and well-known types as text, in both directions; shared by the JSON codec, routes and field paths.
//
// "Bits" are a scalar as it stands on the wire: varints before encoding (negative int32 sign-extended, sint zigzagged),
// floats by their representation.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "call/plan.h"

namespace uccp::call {

// A Timestamp or a Duration.
struct SecondsNanos {
  int64_t seconds = 0;
  int32_t nanos = 0;
};

// Encodes without a tag; not for strings, bytes and messages.
void put_scalar(std::string& out, Kind kind, uint64_t bits);
// Numbers in decimal, "true"/"false", enums by JSON name or by number if unknown, NaN as "NaN"; never quoted.
void append_scalar_text(const FieldPlan& field, uint64_t bits, std::string& out);
// The value that the JSON form quotes: 64-bit integers (without a numeric option), enums, NaN and infinities.
bool quoted_in_json(const FieldPlan& field, uint64_t bits);
// The bits as a number, for range checks. Not for enums.
double to_double(Kind kind, uint64_t bits);
bool is_zero(Kind kind, uint64_t bits);

// Each returns what is wrong with the value, or an empty string and sets `bits`.
std::string integer_to_bits(const FieldPlan& field, bool negative, uint64_t magnitude, uint64_t& bits);
std::string double_to_bits(const FieldPlan& field, double value, uint64_t& bits);
std::string enum_to_bits(const FieldPlan& field, std::string_view name, uint64_t& bits);
// Text of a number, bool or enum.
std::string text_to_bits(const FieldPlan& field, std::string_view text, uint64_t& bits);

// RFC 3339 with "Z" or an offset.
bool parse_timestamp(std::string_view text, SecondsNanos& time);
void append_timestamp(std::string& out, const SecondsNanos& time);
bool timestamp_in_range(const SecondsNanos& time);
// "1.5s", "-3s", "1h30m", "250ms"; units h m s ms us ns, each with a fraction.
bool parse_duration(std::string_view text, SecondsNanos& duration);
void append_duration(std::string& out, const SecondsNanos& duration);
bool duration_in_range(const SecondsNanos& duration);
// The content of a Timestamp or Duration message.
bool read_time(std::string_view message, SecondsNanos& time);
void put_time(std::string& out, const SecondsNanos& time);

// "a.bC,d" to a FieldMask message's content and back. Snake case is taken as it is. False on an empty path.
bool put_field_mask(std::string& out, std::string_view text);
bool append_field_mask(std::string& out, std::string_view message);

// True if `text` is printable ASCII without '"' and '\\': needs no look at single characters in JSON.
bool is_simple(std::string_view text);
void append_quoted(std::string& out, std::string_view text);
// At most 40 bytes of `text` in quotes, for error messages.
std::string excerpt(std::string_view text);

}  // namespace uccp::call
