// Timestamp, Duration and FieldMask as text.
#include <algorithm>
#include <charconv>
#include <chrono>

#include "call/json_codec_text.h"
#include "call/wire.h"

namespace uccp::call {
namespace {

constexpr int64_t kSecondsMin = -62135596800;  // 0001-01-01T00:00:00Z
constexpr int64_t kSecondsMax = 253402300799;  // 9999-12-31T23:59:59Z
constexpr int64_t kDurationMax = 315576000000;
constexpr int32_t kNanos = 1'000'000'000;

// Takes exactly `digits` digits.
bool take(std::string_view& text, size_t digits, int& value) {
  if (text.size() < digits) return false;
  value = 0;
  for (size_t i = 0; i < digits; ++i) {
    if (text[i] < '0' || text[i] > '9') return false;
    value = value * 10 + (text[i] - '0');
  }
  text.remove_prefix(digits);
  return true;
}

bool take(std::string_view& text, char c) {
  if (!text.starts_with(c)) return false;
  text.remove_prefix(1);
  return true;
}

// Takes 1 to 9 digits of a fraction of a second.
bool take_fraction(std::string_view& text, int32_t& nanos) {
  nanos = 0;
  int32_t unit = kNanos / 10;
  size_t i = 0;
  for (; i < text.size() && text[i] >= '0' && text[i] <= '9'; ++i, unit /= 10) {
    if (i == 9) return false;
    nanos += (text[i] - '0') * unit;
  }
  text.remove_prefix(i);
  return i > 0;
}

void append_digits(std::string& out, int64_t value, int width) {
  char buffer[20];
  for (int i = width - 1; i >= 0; --i, value /= 10) buffer[i] = static_cast<char>('0' + value % 10);
  out.append(buffer, static_cast<size_t>(width));
}

// ".5" as 3, 6 or 9 digits, nothing for 0.
void append_nanos(std::string& out, int32_t nanos) {
  if (nanos == 0) return;
  out.push_back('.');
  if (nanos % 1'000'000 == 0) return append_digits(out, nanos / 1'000'000, 3);
  if (nanos % 1'000 == 0) return append_digits(out, nanos / 1'000, 6);
  append_digits(out, nanos, 9);
}

// Nanoseconds of one unit of a duration, longest names first where one begins with another.
struct Unit {
  std::string_view name;
  int64_t nanos;
};
constexpr Unit kUnits[] = {{"ms", 1'000'000},      {"us", 1'000},        {"ns", 1},
                           {"h", 3600ll * kNanos}, {"m", 60ll * kNanos}, {"s", kNanos}};

}  // namespace

bool timestamp_in_range(const SecondsNanos& time) {
  return time.seconds >= kSecondsMin && time.seconds <= kSecondsMax && time.nanos >= 0 && time.nanos < kNanos;
}

bool duration_in_range(const SecondsNanos& duration) {
  if (duration.seconds > kDurationMax || duration.seconds < -kDurationMax) return false;
  if (duration.nanos >= kNanos || duration.nanos <= -kNanos) return false;
  return (duration.seconds >= 0 || duration.nanos <= 0) && (duration.seconds <= 0 || duration.nanos >= 0);
}

bool parse_timestamp(std::string_view text, SecondsNanos& time) {
  int year, month, day, hour, minute, second;
  if (!take(text, 4, year) || !take(text, '-') || !take(text, 2, month) || !take(text, '-') || !take(text, 2, day)) {
    return false;
  }
  if (!take(text, 'T') && !take(text, 't') && !take(text, ' ')) return false;
  if (!take(text, 2, hour) || !take(text, ':') || !take(text, 2, minute) || !take(text, ':') ||
      !take(text, 2, second)) {
    return false;
  }
  const std::chrono::year_month_day date{std::chrono::year(year), std::chrono::month(static_cast<unsigned>(month)),
                                         std::chrono::day(static_cast<unsigned>(day))};
  if (!date.ok() || hour > 23 || minute > 59 || second > 59) return false;
  time.nanos = 0;
  if (take(text, '.') && !take_fraction(text, time.nanos)) return false;
  int64_t offset = 0;
  if (!take(text, 'Z') && !take(text, 'z')) {
    const bool west = text.starts_with('-');
    int hours, minutes;
    if (!take(text, west ? '-' : '+') || !take(text, 2, hours) || !take(text, ':') || !take(text, 2, minutes))
      return false;
    if (hours > 23 || minutes > 59) return false;
    offset = (hours * 3600 + minutes * 60) * (west ? -1 : 1);
  }
  const int64_t days = std::chrono::sys_days(date).time_since_epoch().count();
  time.seconds = days * 86400 + hour * 3600 + minute * 60 + second - offset;
  return text.empty() && timestamp_in_range(time);
}

void append_timestamp(std::string& out, const SecondsNanos& time) {
  const int64_t day = (time.seconds >= 0 ? time.seconds : time.seconds - 86399) / 86400;
  const int64_t second = time.seconds - day * 86400;
  const std::chrono::year_month_day date{std::chrono::sys_days(std::chrono::days(day))};
  append_digits(out, static_cast<int>(date.year()), 4);
  out.push_back('-');
  append_digits(out, static_cast<unsigned>(date.month()), 2);
  out.push_back('-');
  append_digits(out, static_cast<unsigned>(date.day()), 2);
  out.push_back('T');
  append_digits(out, second / 3600, 2);
  out.push_back(':');
  append_digits(out, second / 60 % 60, 2);
  out.push_back(':');
  append_digits(out, second % 60, 2);
  append_nanos(out, time.nanos);
  out.push_back('Z');
}

bool parse_duration(std::string_view text, SecondsNanos& duration) {
  const bool negative = take(text, '-');
  if (text.empty()) return false;
  __int128 total = 0;
  while (!text.empty()) {
    int64_t whole = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), whole);
    if (error != std::errc() || *text.data() == '-' || whole > kDurationMax * 1000) return false;
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    int32_t fraction = 0;
    if (take(text, '.') && !take_fraction(text, fraction)) return false;
    const auto unit = std::find_if(std::begin(kUnits), std::end(kUnits),
                                   [&](const Unit& candidate) { return text.starts_with(candidate.name); });
    if (unit == std::end(kUnits)) return false;
    text.remove_prefix(unit->name.size());
    total += static_cast<__int128>(whole) * unit->nanos + static_cast<__int128>(fraction) * unit->nanos / kNanos;
    if (total > static_cast<__int128>(kDurationMax) * kNanos) return false;
  }
  if (negative) total = -total;
  duration = {static_cast<int64_t>(total / kNanos), static_cast<int32_t>(total % kNanos)};
  return true;
}

void append_duration(std::string& out, const SecondsNanos& duration) {
  if (duration.seconds < 0 || duration.nanos < 0) out.push_back('-');
  char buffer[24];
  const int64_t seconds = duration.seconds < 0 ? -duration.seconds : duration.seconds;
  out.append(buffer, std::to_chars(buffer, buffer + sizeof(buffer), seconds).ptr);
  append_nanos(out, duration.nanos < 0 ? -duration.nanos : duration.nanos);
  out.push_back('s');
}

bool read_time(std::string_view message, SecondsNanos& time) {
  time = {};
  WireReader reader(message);
  WireField field;
  while (reader.next(field)) {
    if (field.number > 2) continue;
    if (field.type != WireType::kVarint) return false;
    if (field.number == 1) time.seconds = static_cast<int64_t>(field.value);
    if (field.number == 2) time.nanos = static_cast<int32_t>(field.value);
  }
  return reader.ok();
}

void put_time(std::string& out, const SecondsNanos& time) {
  if (time.seconds != 0) put_uint(out, 1, static_cast<uint64_t>(time.seconds));
  if (time.nanos != 0) put_uint(out, 2, static_cast<uint64_t>(static_cast<int64_t>(time.nanos)));
}

bool put_field_mask(std::string& out, std::string_view text) {
  while (!text.empty()) {
    const size_t comma = text.find(',');
    const std::string_view path = text.substr(0, comma);
    if (path.empty()) return false;
    const size_t mark = begin_bytes(out, 1);
    for (const char c : path) {
      if (c >= 'A' && c <= 'Z') {
        out.push_back('_');
        out.push_back(static_cast<char>(c - 'A' + 'a'));
      } else {
        out.push_back(c);
      }
    }
    end_bytes(out, mark);
    if (comma == std::string_view::npos) break;
    text.remove_prefix(comma + 1);
    if (text.empty()) return false;
  }
  return true;
}

bool append_field_mask(std::string& out, std::string_view message) {
  WireReader reader(message);
  WireField field;
  bool first = true;
  while (reader.next(field)) {
    if (field.number != 1) continue;
    if (field.type != WireType::kBytes) return false;
    if (!first) out.push_back(',');
    first = false;
    for (size_t i = 0; i < field.bytes.size(); ++i) {
      char c = field.bytes[i];
      const bool join =
          c == '_' && i + 1 < field.bytes.size() && field.bytes[i + 1] >= 'a' && field.bytes[i + 1] <= 'z';
      if (join) c = static_cast<char>(field.bytes[++i] - 'a' + 'A');
      out.push_back(c);
    }
  }
  return reader.ok();
}

}  // namespace uccp::call
