#include "server/quota_alerts.h"

#include "server/system_events.h"

namespace uccp::server {
namespace {

constexpr const char* kTopic = "uccp.quota";

v1::Event event_of(const tasks::QuotaAlert& alert) {
  v1::Event event;
  event.set_type("quota.threshold");
  event.set_subject(alert.key);
  event.set_key(alert.key);
  auto& fields = *event.mutable_json()->mutable_struct_value()->mutable_fields();
  fields["quota"].set_string_value(alert.key);
  fields["limit"].set_string_value(alert.limit);
  fields["used"].set_number_value(alert.used);
  fields["hard"].set_number_value(alert.hard);
  fields["threshold"].set_number_value(alert.threshold);
  return event;
}

}  // namespace

void publish_alert(const call::HandlerTable& handlers, const Clock& clock, const tasks::QuotaAlert& alert) {
  publish_event(handlers, clock, {alert.tenant, alert.name_space}, kTopic, event_of(alert));
}

}  // namespace uccp::server
