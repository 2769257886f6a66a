#include "server/event_triggers.h"

#include <atomic>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "server/caller_rights.h"

namespace uccp::server {
namespace {

constexpr std::string_view kSubscribe = "uccp.v1.EventBus/Subscribe";

// What comes is counted until whoever takes it says that it is done with it: so a stream waits for its tasks.
class EventSink final : public call::Sink {
 public:
  EventSink(tasks::TaskMakers::OnEvent on_event, tasks::TaskMakers::OnEventsEnd on_end)
      : on_event_(std::move(on_event)), on_end_(std::move(on_end)) {}
  void send(std::string message) override {
    v1::EventDelivery delivery;
    if (!delivery.ParseFromString(message)) return;
    const size_t bytes = message.size();
    queued_ += bytes;
    on_event_(std::move(delivery), [self = weak_, bytes] {
      const auto sink = self.lock();
      if (sink == nullptr) return;
      sink->queued_ -= bytes;
      if (const auto call = sink->call_.lock()) call->deliver_drain();
    });
  }
  void finish(Status status) override { on_end_(std::move(status)); }
  size_t queued_bytes() const override { return queued_.load(); }

  void belongs_to(const std::shared_ptr<EventSink>& self, const call::CallPtr& call) {
    weak_ = self;
    call_ = call;
  }

 private:
  const tasks::TaskMakers::OnEvent on_event_;
  const tasks::TaskMakers::OnEventsEnd on_end_;
  std::atomic<size_t> queued_{0};
  std::weak_ptr<EventSink> weak_;
  std::weak_ptr<call::Call> call_;
};

}  // namespace

Status may_subscribe(const call::PolicySet& policies, const Clock& clock, const call::Call& call,
                     const std::string& topic) {
  v1::SubscribeRequest request;
  request.add_topics(topic);
  request.set_namespace_(call.name_space);
  return may_call(policies, clock, call, kSubscribe, topic, request.SerializeAsString());
}

tasks::TaskMakers::OpenEvents open_events(const call::HandlerTable& handlers, const Clock& clock) {
  return
      [&handlers, &clock](const tasks::TaskRef& ref, v1::SubscribeRequest request, tasks::TaskMakers::OnEvent on_event,
                          tasks::TaskMakers::OnEventsEnd on_end) -> std::shared_ptr<void> {
        auto call = std::make_shared<call::Call>();
        call->method = call::Contract::get().find(kSubscribe);
        const call::Handler* subscribe = handlers.find(call->method);
        if (subscribe == nullptr) return nullptr;
        call->principal.kind = call::Principal::Kind::kNode;
        call->principal.name = "system";
        call->principal.tenant = ref.tenant;
        call->name_space = ref.name_space;
        call->started = clock.boot();
        request.set_namespace_(ref.name_space);
        auto sink = std::make_shared<EventSink>(std::move(on_event), std::move(on_end));
        sink->belongs_to(sink, call);
        call->sink = sink;
        (*subscribe)(call, request.SerializeAsString());
        // Whoever lets go of it ends the stream.
        return {call.get(), [call](void*) { call->deliver_cancel(); }};
      };
}

}  // namespace uccp::server
