#include "server/scheduling_settings.h"

#include "server/backfill_choice.h"

namespace uccp::server {
namespace {

constexpr int64_t kHeadroomPercentMax = 90;

}  // namespace

Result<tasks::SchedulerPolicy> scheduling_settings(const Config& config) {
  tasks::SchedulerPolicy policy;
  UCCP_TRY(BackfillChoice backfill, parse_backfill(config.text("backfill")));
  policy.backfill = backfill.backfill;
  policy.backfill_rules = std::move(backfill.rules);
  UCCP_TRY(const uint64_t percent, config.integer_between("interactive_headroom", 0, kHeadroomPercentMax));
  policy.headroom_percent = static_cast<int32_t>(percent);
  UCCP_TRY(policy.gang_reservations,
           config.integer_between("gang_reservations", 1, static_cast<int64_t>(tasks::kReservationsMax)));
  return policy;
}

}  // namespace uccp::server
