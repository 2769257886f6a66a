#include "server/quota_alerts.h"

#include <memory>
#include <string>
#include <string_view>

#include "base/log.h"
#include "services/message_types.h"
#include "uccp/v1/events.pb.h"

namespace uccp::server {
namespace {

constexpr std::string_view kPublish = "uccp.v1.EventBus/Publish";
constexpr const char* kTopic = "uccp.quota";

class Answer final : public call::Sink {
 public:
  explicit Answer(std::string key) : key_(std::move(key)) {}
  void send(std::string) override {}
  void finish(Status status) override {
    // Without the topic nobody wants them.
    if (!status.is_ok() && status.code() != Code::kNotFound)
      log::warn("an alert of a quota was not published", {{"quota", key_}, {"why", status.message()}});
  }
  size_t queued_bytes() const override { return 0; }

 private:
  const std::string key_;
};

v1::PublishRequest request_of(const tasks::QuotaAlert& alert, WallTime now) {
  v1::PublishRequest request;
  request.set_topic(kTopic);
  request.set_namespace_(alert.name_space);
  v1::Event& event = *request.add_events();
  event.set_type("quota.threshold");
  event.set_source("uccp");
  event.set_subject(alert.key);
  event.set_key(alert.key);
  services::set_wall(event.mutable_time(), now);
  auto& fields = *event.mutable_json()->mutable_struct_value()->mutable_fields();
  fields["quota"].set_string_value(alert.key);
  fields["limit"].set_string_value(alert.limit);
  fields["used"].set_number_value(alert.used);
  fields["hard"].set_number_value(alert.hard);
  fields["threshold"].set_number_value(alert.threshold);
  return request;
}

}  // namespace

void publish_alert(const call::HandlerTable& handlers, const Clock& clock, const tasks::QuotaAlert& alert) {
  auto call = std::make_shared<call::Call>();
  call->method = call::Contract::get().find(kPublish);
  const call::Handler* publish = handlers.find(call->method);
  if (publish == nullptr) return;
  call->principal.kind = call::Principal::Kind::kNode;
  call->principal.name = "system";
  call->principal.tenant = alert.tenant;
  call->name_space = alert.name_space;
  call->started = clock.boot();
  call->sink = std::make_shared<Answer>(alert.key);
  (*publish)(call, request_of(alert, clock.wall()).SerializeAsString());
}

}  // namespace uccp::server
