#include "server/system_events.h"

#include <memory>
#include <string_view>

#include "base/log.h"
#include "services/message_types.h"

namespace uccp::server {
namespace {

constexpr std::string_view kPublish = "uccp.v1.EventBus/Publish";

class Answer final : public call::Sink {
 public:
  Answer(std::string topic, std::string subject) : topic_(std::move(topic)), subject_(std::move(subject)) {}
  void send(std::string) override {}
  void finish(Status status) override {
    // Without the topic nobody wants them.
    if (!status.is_ok() && status.code() != Code::kNotFound)
      log::warn("an event of the server was not published",
                {{"topic", topic_}, {"subject", subject_}, {"why", status.message()}});
  }
  size_t queued_bytes() const override { return 0; }

 private:
  const std::string topic_, subject_;
};

}  // namespace

void publish_event(const call::HandlerTable& handlers, const Clock& clock, const machine::Scope& scope,
                   const std::string& topic, v1::Event event) {
  auto call = std::make_shared<call::Call>();
  call->method = call::Contract::get().find(kPublish);
  const call::Handler* publish = handlers.find(call->method);
  if (publish == nullptr) return;
  call->principal.kind = call::Principal::Kind::kNode;
  call->principal.name = "system";
  call->principal.tenant = scope.tenant;
  call->name_space = scope.name_space;
  call->started = clock.boot();
  call->sink = std::make_shared<Answer>(topic, event.subject());
  v1::PublishRequest request;
  request.set_topic(topic);
  request.set_namespace_(scope.name_space);
  event.set_source("uccp");
  services::set_wall(event.mutable_time(), clock.wall());
  *request.add_events() = std::move(event);
  (*publish)(call, request.SerializeAsString());
}

}  // namespace uccp::server
