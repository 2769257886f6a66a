#include "sim/cluster/event_client.h"

#include <algorithm>

#include "call/contract.h"
#include "services/events/bus_rows.h"

namespace uccp::sim {
namespace {

constexpr int64_t kDeadlineMs = 400;
constexpr int64_t kBatchMax = 4;

const call::Method* method(const char* rpc) {
  return call::Contract::get().find("uccp.v1.EventBus/" + std::string(rpc));
}

}  // namespace

EventClient::EventClient(SimCluster& cluster, size_t number, uint64_t operations)
    : SimClient(cluster, "events-" + std::to_string(number)), once_(static_cast<Once>(number % 3)), left_(operations) {}

void EventClient::start() {
  after_us(below(20'000), [this] {
    make_topic(kSimTopic,
               [this] { make_topic(kSimShortTopic, [this] { make_topic(kSimLastTopic, [this] { next(); }); }); });
  });
}

// All clients make it; one of them is first.
void EventClient::make_topic(std::string_view name, std::function<void()> then) {
  v1::CreateTopicRequest request;
  request.mutable_topic()->set_name(std::string(name));
  request.mutable_topic()->set_partitions(kSimPartitions);
  request.mutable_topic()->set_persistence(v1::TOPIC_PERSISTENCE_PERSISTENT);
  request.mutable_topic()->set_compacted(name == kSimLastTopic);
  if (name == kSimShortTopic) {
    request.mutable_topic()->set_retention_events(kSimShortTopicEvents);
    request.mutable_topic()->mutable_retention()->set_seconds(kSimShortTopicSeconds);
  }
  ask({.method = method("CreateTopic"), .request = request.SerializeAsString(), .deadline_ms = kDeadlineMs},
      [this, name, then](const Result<machine::Applied>& result, int64_t) {
        if (!result && result.error().code() == Code::kDeadline) return make_topic(name, then);
        if (!result && result.error().code() != Code::kAlreadyExists) {
          cluster_.checkers().violations.add("events", this->name() + ": " + result.error().to_string());
        }
        then();
      });
}

void EventClient::next() {
  if (left_ == 0) return;
  v1::PublishRequest request;
  request.set_topic(std::string(chance(0.6) ? kSimTopic : chance(0.5) ? kSimShortTopic : kSimLastTopic));
  const std::string key = name() + (once_ == Once::kProducer || chance(0.5) ? "" : "b");
  for (int64_t i = 0, count = 1 + below(kBatchMax); i < count; ++i) {
    v1::Event& event = *request.add_events();
    event.set_key(key);
    event.set_text(key + "#" + std::to_string(++numbers_));
    // Some are large, so that the cache of the log is too small for all.
    if (chance(0.05)) event.set_source(std::string(static_cast<size_t>(below(255)), 'x'));
    if (once_ == Once::kEvent)
      event.set_id(event.text().substr(0, event.text().find('#')) + "." + std::to_string(numbers_));
  }
  if (once_ == Once::kProducer) {
    uint64_t& sequence = sequences_.try_emplace(request.topic(), 1).first->second;
    request.set_producer_id(name());
    request.set_producer_epoch(1);
    request.set_sequence(sequence);
    sequence += static_cast<uint64_t>(request.events_size());
  }
  send(std::move(request));
}

// A deadline says nothing about earlier attempts: the same request goes out again.
void EventClient::send(v1::PublishRequest request) {
  ServiceCall call{.method = method("Publish"), .request = request.SerializeAsString(), .deadline_ms = kDeadlineMs};
  if (once_ == Once::kRequest) call.request_id = "p" + std::to_string(numbers_);
  ask_leader(events::bus_group(0), std::move(call),
             [this, request = std::move(request)](const Result<machine::Applied>& result, int64_t) {
               if (!result && result.error().code() == Code::kDeadline) return send(request);
               if (result) take(request, result->response);
               else cluster_.checkers().violations.add("events", name() + ": " + result.error().to_string());
               --left_;
               after_us(below(chance(0.05) ? 100'000 : 3'000), [this] { next(); });
             });
}

void EventClient::take(const v1::PublishRequest& request, const std::string& answer) {
  v1::PublishResponse response;
  if (!response.ParseFromString(answer) || response.results_size() != request.events_size()) {
    return cluster_.checkers().violations.add("events", name() + ": a Publish is answered by something else");
  }
  for (int i = 0; i < response.results_size(); ++i) {
    const v1::PublishResult& result = response.results(i);
    // Of what is kept for a while only, an acknowledgement does not promise that it can still be read.
    if (request.topic() == kSimShortTopic) continue;
    cluster_.checkers().events.acknowledged({request.topic(), result.partition()}, result.offset(),
                                            request.events(i).text(), result.duplicate());
  }
}

}  // namespace uccp::sim
