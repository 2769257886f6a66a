// Schedules that somebody made up: an expression and, behind a line break, a time zone. What is taken fires later than
// any moment it is asked about, or never.
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "services/tasks/cron.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp;
  const std::string input(reinterpret_cast<const char*>(data), size);
  const size_t cut = input.find('\n');
  const std::string zone = cut == std::string::npos ? "" : input.substr(cut + 1);
  const auto cron = tasks::CronSchedule::parse(input.substr(0, cut), zone);
  if (!cron) {
    const std::string_view reason = cron.error().reason();
    UCCP_CHECK(reason == "CRON_INVALID" || reason == "TIME_ZONE_UNKNOWN", "a refusal says which part is wrong");
    return 0;
  }
  // The turn of the year, a leap day, the two changes of clocks in Europe, the beginning of time.
  for (const int64_t at_s : std::array<int64_t, 5>{1'767'225'599, 1'709'164'800, 1'774'745'999, 1'792'889'999, 0}) {
    const int64_t at_us = at_s * 1'000'000;
    const auto next = cron->next(at_us);
    if (!next) continue;
    UCCP_CHECK(*next > at_us, "a schedule fires after the moment that was asked about");
    const auto same = cron->next(*next - 1);
    UCCP_CHECK(same && *same == *next, "there is nothing between a moment and the next fire");
  }
  return 0;
}
