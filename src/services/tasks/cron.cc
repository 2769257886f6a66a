#include "services/tasks/cron.h"

#include <absl/time/civil_time.h>
#include <absl/time/time.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>
#include <vector>

#include "services/message_types.h"

namespace uccp::tasks {
namespace {

// Between two 29ths of February there are eight years around a century that has none.
constexpr int kDaysLookedAt = 366 * 9;

struct Field {
  std::string_view name;
  int low;
  int high;
  std::string_view words;  // three letters each, from `low` on; empty: numbers only
};
constexpr std::array<Field, 5> kFields = {{{"minute", 0, 59, ""},
                                           {"hour", 0, 23, ""},
                                           {"day of the month", 1, 31, ""},
                                           {"month", 1, 12, "janfebmaraprmayjunjulaugsepoctnovdec"},
                                           {"day of the week", 0, 7, "sunmontuewedthufrisat"}}};

Status bad(const std::string& text, const std::string& why) {
  return Status(Code::kInvalid, "CRON_INVALID", "task.schedule.cron: \"" + text + "\" " + why)
      .with_field("task.schedule.cron", why, "*/5 * * * *");
}

std::vector<std::string_view> split(std::string_view text, char by) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t end = text.find(by);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

std::optional<int> number(std::string_view text, const Field& field) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size() && !text.empty()) {
    return value >= field.low && value <= field.high ? std::optional(value) : std::nullopt;
  }
  if (text.size() != 3) return std::nullopt;
  std::string word(text);
  for (char& c : word) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  const size_t at = field.words.find(word);
  if (at == std::string_view::npos || at % 3 != 0) return std::nullopt;
  return field.low + static_cast<int>(at / 3);
}

// Sets the bits of one field. `text`: all of the expression, for the message.
template <size_t N>
Status set_field(std::string_view part, const Field& field, const std::string& text, std::bitset<N>& bits) {
  const auto wrong = [&](std::string_view item, const std::string& why) {
    return bad(text, "has \"" + std::string(item) + "\" as its " + std::string(field.name) + ", " + why);
  };
  const std::string range = "which is no number from " + std::to_string(field.low) + " to " +
                            std::to_string(field.high) + (field.words.empty() ? "" : " and no name of three letters");
  for (const std::string_view item : split(part, ',')) {
    const auto pieces = split(item, '/');
    int step = 1;
    if (pieces.size() > 2) return wrong(item, "which has more than one step");
    if (pieces.size() == 2) {
      const auto [end, error] = std::from_chars(pieces[1].data(), pieces[1].data() + pieces[1].size(), step);
      if (error != std::errc() || end != pieces[1].data() + pieces[1].size() || step < 1 || step > field.high)
        return wrong(item, "whose step is no number from 1 to " + std::to_string(field.high));
    }
    int low = field.low, high = field.high;
    if (pieces[0] != "*") {
      const auto ends = split(pieces[0], '-');
      const auto first = number(ends[0], field);
      const auto last = ends.size() == 2 ? number(ends[1], field) : first;
      if (ends.size() > 2 || !first || !last) return wrong(item, range);
      if (*last < *first) return wrong(item, "a range that ends before it begins");
      low = *first;
      // `5/10` is everything from 5 on, as elsewhere.
      high = ends.size() == 1 && pieces.size() == 2 ? field.high : *last;
    }
    for (int i = low; i <= high; i += step) bits.set(static_cast<size_t>(N == 7 ? i % 7 : i));
  }
  return Status::ok();
}

std::string_view named(std::string_view text) {
  if (text == "@hourly") return "0 * * * *";
  if (text == "@daily" || text == "@midnight") return "0 0 * * *";
  if (text == "@weekly") return "0 0 * * 0";
  if (text == "@monthly") return "0 0 1 * *";
  if (text == "@yearly" || text == "@annually") return "0 0 1 1 *";
  return text;
}

// Names only: a path would name any file of the node.
bool is_zone_name(std::string_view name) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '/' || c == '_' ||
           c == '-' || c == '+';
  };
  return !name.empty() && name.front() != '/' && std::ranges::all_of(name, plain);
}

bool load_zone(const std::string& name, absl::TimeZone& zone) {
  return is_zone_name(name) && absl::LoadTimeZone(name, &zone);
}

// The moments at which a local time is; see the head of the header.
void add_moments(const absl::TimeZone& zone, const absl::CivilSecond& local, bool every_hour,
                 std::vector<int64_t>& out) {
  const absl::TimeZone::TimeInfo info = zone.At(local);
  switch (info.kind) {
    case absl::TimeZone::TimeInfo::UNIQUE: return out.push_back(absl::ToUnixMicros(info.pre));
    case absl::TimeZone::TimeInfo::SKIPPED:
      // The hour that follows is in a schedule of every hour anyway.
      if (!every_hour) out.push_back(absl::ToUnixMicros(info.trans));
      return;
    case absl::TimeZone::TimeInfo::REPEATED:
      out.push_back(absl::ToUnixMicros(info.pre));
      if (every_hour) out.push_back(absl::ToUnixMicros(info.post));
      return;
  }
}

}  // namespace

Result<CronSchedule> CronSchedule::parse(const std::string& cron, const std::string& time_zone) {
  CronSchedule schedule;
  std::vector<std::string_view> parts;
  for (const std::string_view part : split(named(cron), ' ')) {
    if (!part.empty()) parts.push_back(part);
  }
  if (cron.starts_with('@') && parts.size() == 1)
    return fail(bad(cron, "is none of @hourly, @daily, @weekly, @monthly and @yearly"));
  if (parts.size() != kFields.size())
    return fail(bad(cron, "has " + std::to_string(parts.size()) + " fields; minute, hour, day, month, weekday are 5"));
  UCCP_RETURN_IF_ERROR(set_field(parts[0], kFields[0], cron, schedule.minutes_));
  UCCP_RETURN_IF_ERROR(set_field(parts[1], kFields[1], cron, schedule.hours_));
  UCCP_RETURN_IF_ERROR(set_field(parts[2], kFields[2], cron, schedule.days_));
  UCCP_RETURN_IF_ERROR(set_field(parts[3], kFields[3], cron, schedule.months_));
  UCCP_RETURN_IF_ERROR(set_field(parts[4], kFields[4], cron, schedule.weekdays_));
  schedule.any_day_ = parts[2].starts_with('*');
  schedule.any_weekday_ = parts[4].starts_with('*');
  schedule.zone_ = time_zone.empty() ? "UTC" : time_zone;
  absl::TimeZone zone;
  if (!load_zone(schedule.zone_, zone)) {
    return fail(Status(Code::kInvalid, "TIME_ZONE_UNKNOWN",
                       "task.schedule.timeZone: this node knows no time zone " + schedule.zone_ +
                           "; names are those of the IANA, and its files (tzdata) have to be installed")
                    .with_field("task.schedule.timeZone", "is no known time zone", "Europe/Berlin"));
  }
  return schedule;
}

std::optional<int64_t> CronSchedule::next(int64_t after_us) const {
  absl::TimeZone zone;
  if (!load_zone(zone_, zone)) return std::nullopt;
  const bool every_hour = hours_.all();
  // A day earlier: what a change of clocks moved out of a day is behind its end.
  absl::CivilDay day(zone.At(absl::FromUnixMicros(after_us)).cs);
  day -= 1;
  for (int i = 0; i < kDaysLookedAt; ++i, ++day) {
    if (!months_.test(static_cast<size_t>(day.month()))) continue;
    const bool on_day = days_.test(static_cast<size_t>(day.day()));
    const auto weekday = (static_cast<size_t>(absl::GetWeekday(day)) + 1) % 7;  // Monday is 0 there, Sunday here
    const bool on_weekday = weekdays_.test(weekday);
    const bool fits = any_day_ || any_weekday_ ? on_day && on_weekday : on_day || on_weekday;
    if (!fits) continue;
    std::vector<int64_t> moments;
    for (size_t hour = 0; hour < 24; ++hour) {
      for (size_t minute = 0; hours_.test(hour) && minute < 60; ++minute) {
        if (!minutes_.test(minute)) continue;
        add_moments(
            zone,
            absl::CivilSecond(day.year(), day.month(), day.day(), static_cast<int>(hour), static_cast<int>(minute), 0),
            every_hour, moments);
      }
    }
    std::ranges::sort(moments);
    const auto first = std::ranges::upper_bound(moments, after_us);
    if (first != moments.end()) return *first;
  }
  return std::nullopt;
}

std::optional<int64_t> next_fire(const CronSchedule& cron, const v1::Schedule& schedule, int64_t after_us) {
  if (schedule.has_start_time()) after_us = std::max(after_us, services::us_of(schedule.start_time()) - 1);
  const auto next = cron.next(after_us);
  if (next && schedule.has_end_time() && *next > services::us_of(schedule.end_time())) return std::nullopt;
  return next;
}

Result<CronSchedule> check_schedule(const v1::Schedule& schedule, int64_t now_us) {
  UCCP_TRY(CronSchedule cron, CronSchedule::parse(schedule.cron(), schedule.time_zone()));
  if (!next_fire(cron, schedule, now_us)) {
    return fail(Status(Code::kInvalid, "CRON_NEVER_FIRES",
                       "task.schedule: \"" + schedule.cron() + "\" never fires" +
                           (schedule.has_end_time() ? " before endTime" : ": there is no such day"))
                    .with_field("task.schedule.cron", "never fires", "0 6 * * MON-FRI"));
  }
  return cron;
}

}  // namespace uccp::tasks
