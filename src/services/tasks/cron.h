// Times of a cron schedule: an expression of five fields, in a time zone. Pure, but for the files of the zones, which
// are read once.
//
// Minute, hour, day of the month, month, day of the week: `*`, numbers, names of months and days, ranges, lists and
// steps
// (`*/5`, `8-18/2`, `MON-FRI`); 0 and 7 are Sunday. If both days are restricted, one of them is enough, as in every
// cron. When clocks are put forward, a time that does not exist fires at the moment of the change, once. When they are
// put back, a time that comes twice fires the first time only, unless the schedule has every hour: that follows real
// time.
#pragma once

#include <bitset>
#include <cstdint>
#include <optional>
#include <string>

#include "base/status.h"
#include "uccp/v1/tasks.pb.h"

namespace uccp::tasks {

class CronSchedule {
 public:
  // Errors: invalid CRON_INVALID (which field, what is wrong), TIME_ZONE_UNKNOWN.
  static Result<CronSchedule> parse(const std::string& cron, const std::string& time_zone);

  // The first time after this one, microseconds since 1970; nothing if there is none within nine years.
  std::optional<int64_t> next(int64_t after_us) const;

 private:
  std::bitset<60> minutes_;
  std::bitset<24> hours_;
  std::bitset<32> days_;
  std::bitset<13> months_;
  std::bitset<7> weekdays_;
  bool any_day_ = false;
  bool any_weekday_ = false;
  std::string zone_;
};

// The schedule of a CRON task with its bounds. Errors: as parse; invalid CRON_NEVER_FIRES.
Result<CronSchedule> check_schedule(const v1::Schedule& schedule, int64_t now_us);
// As CronSchedule::next, within the bounds of the schedule.
std::optional<int64_t> next_fire(const CronSchedule& cron, const v1::Schedule& schedule, int64_t after_us);

}  // namespace uccp::tasks
