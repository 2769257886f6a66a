#include "services/events/streams.h"

#include "services/events/stream.h"

namespace uccp::events {

constexpr int64_t kKeepAliveTickMs = 1'000;

std::shared_ptr<Streams> Streams::make(StreamOptions options, const Environment& environment) {
  return std::shared_ptr<Streams>(new Streams(options, environment));
}

Streams::Streams(StreamOptions options, const Environment& environment)
    : options_(options),
      env_(environment),
      open_(env_.metrics.gauge("uccp_event_streams", "Streams of events without a subscription on this node")),
      delivered_(env_.metrics.counter("uccp_events_delivered_total", "Events sent to streams without a subscription")),
      delivered_bytes_(env_.metrics.counter("uccp_events_delivered_bytes_total",
                                            "Bytes of events sent to streams without a subscription")) {}

void Streams::show_changes(std::vector<services::ChangeTopic> topics, May may) {
  change_topics_ = std::move(topics);
  may_ = std::move(may);
}

void Streams::open(const call::CallPtr& call, const v1::SubscribeRequest& request) {
  Cursor since;
  if (!request.since().empty()) {
    auto cursor = decode_cursor(request.since());
    if (!cursor) return call->finish(std::move(cursor.error()));
    since = std::move(*cursor);
  }
  auto filter = EventFilter::compile(request.filter());
  if (!filter) return call->finish(std::move(filter.error()));
  auto stream = std::make_shared<Stream>(shared_from_this(), call, request, std::move(since), std::move(*filter));
  call->on_cancel([weak = std::weak_ptr(stream), self = shared_from_this()] {
    const auto stream = weak.lock();
    if (!stream) return;
    stream->call()->finish(Status(Code::kCancelled, "CANCELLED", "the client went away"));
    // It notices that the call has ended.
    self->env_.events.post([stream, self] { stream->keep_alive(self->env_.clock.boot()); });
  });
  env_.events.post([self = shared_from_this(), stream] { self->add(stream); });
}

void Streams::add(const std::shared_ptr<Stream>& stream) {
  if (stream->call()->finished()) return;
  if (streams_.size() >= options_.streams_max) {
    return stream->call()->finish(
        Status(Code::kExhausted, "STREAMS_EXHAUSTED",
               std::to_string(options_.streams_max) +
                   " streams of events are open on this node; close some, or use another node")
            .with_help("events.md#limits"));
  }
  streams_[stream.get()] = stream;
  open_.set(static_cast<double>(streams_.size()));
  schedule_keep_alive();
  stream->start();
}

void Streams::schedule_keep_alive() {
  if (std::exchange(keep_alive_scheduled_, true)) return;
  env_.events.post_after(kKeepAliveTickMs, [self = shared_from_this()] {
    self->keep_alive_scheduled_ = false;
    const auto all = self->streams_;
    for (const auto& [key, stream] : all) stream->keep_alive(self->env_.clock.boot());
    if (!self->streams_.empty()) self->schedule_keep_alive();
  });
}

}  // namespace uccp::events
