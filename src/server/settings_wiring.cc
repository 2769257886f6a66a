#include "server/settings_wiring.h"

#include <utility>

#include "base/log.h"

namespace uccp::server {

Result<std::vector<call::RateRule>> rate_rules(const Config& config) {
  UCCP_TRY(std::vector<call::RateRule> rules, call::parse_rate_rules(config.text("rate_limits")));
  for (const auto& [quota_class, key] : {std::pair{"write", "rate_limit_write"}, {"read", "rate_limit_read"}}) {
    const auto rate = static_cast<double>(config.integer(key));
    if (rate > 0) rules.push_back({.quota_class = quota_class, .per_second = rate, .burst = rate});
  }
  return rules;
}

call::Pipeline::Limits call_limits(const Config& config) {
  return {static_cast<size_t>(config.integer("calls_in_flight_max")),
          static_cast<size_t>(config.integer("calls_waiting_max")),
          static_cast<int>(config.integer("calls_in_flight_tenant_percent"))};
}

void follow_settings(LiveSettings& settings, SettingUsers users) {
  const auto any = [](const Config&) { return Status::ok(); };
  settings.add({{"log_level"},
                [](const Config& config) {
                  log::Level level;
                  if (log::parse_level(config.text("log_level"), level)) return Status::ok();
                  return Status(Code::kInvalid, "SETTING_INVALID",
                                "log_level is TRACE, DEBUG, INFO, WARN, ERROR or FATAL");
                },
                [](const Config& config) {
                  log::Level level;
                  if (log::parse_level(config.text("log_level"), level)) log::set_level(level);
                }});
  settings.add(
      {{"rate_limits", "rate_limit_write", "rate_limit_read"},
       [](const Config& config) -> Status { return rate_rules(config) ? Status::ok() : rate_rules(config).error(); },
       [users](const Config& config) {
         users.pipeline.set_rates(rate_rules(config).value_or(std::vector<call::RateRule>()));
       }});
  const auto some = [](const Config& config) {
    if (config.integer("calls_in_flight_max") <= 0) {
      return Status(Code::kInvalid, "SETTING_INVALID",
                    "calls_in_flight_max must be at least 1, or nobody could raise it again");
    }
    const int64_t percent = config.integer("calls_in_flight_tenant_percent");
    if (percent >= 1 && percent <= 100) return Status::ok();
    return Status(Code::kInvalid, "SETTING_INVALID",
                  "calls_in_flight_tenant_percent is " + std::to_string(percent) + "; it must be 1 to 100");
  };
  settings.add({{"calls_in_flight_max", "calls_waiting_max", "calls_in_flight_tenant_percent"},
                some,
                [users](const Config& config) { users.pipeline.set_limits(call_limits(config)); }});
  settings.add({{"session_ttl"}, any, [users](const Config& config) {
                  users.identity.set_session_ttl(config.duration_ms("session_ttl"));
                }});
  settings.add({{"certificate_alert"}, any, [users](const Config& config) {
                  users.certificates.set_alert_before(config.duration_ms("certificate_alert") / 1000);
                }});
}

}  // namespace uccp::server
