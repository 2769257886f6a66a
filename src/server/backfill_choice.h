// The setting `backfill` as text.
#pragma once

#include <string_view>
#include <vector>

#include "base/status.h"
#include "services/tasks/scheduler.h"

namespace uccp::server {

// "easy" or "conservative", and behind it exceptions for queues, separated by commas, the first that fits counts:
// "easy, research/nightly:conservative, */urgent:conservative".
struct BackfillChoice {
  tasks::Backfill backfill = tasks::Backfill::kEasy;
  std::vector<tasks::BackfillRule> rules;
};
// Errors: invalid CONFIG_INVALID with the part that is wrong.
Result<BackfillChoice> parse_backfill(std::string_view text);

}  // namespace uccp::server
