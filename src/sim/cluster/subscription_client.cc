#include "sim/cluster/subscription_client.h"

#include <set>

#include "sim/cluster/event_client.h"

namespace uccp::sim {
namespace {

constexpr std::string_view kSubscription = "members";
constexpr int32_t kPulledMax = 20;

}  // namespace

SubscriptionClient::SubscriptionClient(SimCluster& cluster, size_t number)
    : SimClient(cluster, "member-" + std::to_string(number)) {}

void SubscriptionClient::start() {
  after_us(below(50'000), [this] { subscribe(); });
}

// All members make it; one of them is first.
void SubscriptionClient::subscribe() {
  internal::v1::SubscriptionCreateCommand command;
  v1::Subscription& subscription = *command.mutable_row()->mutable_subscription();
  subscription.set_name(std::string(kSubscription));
  subscription.add_topics(std::string(kSimTopic));
  subscription.set_ack_mode(v1::ACK_MODE_MANUAL);
  subscription.mutable_ack_timeout()->set_seconds(1);
  command.mutable_row()->set_start(v1::SUBSCRIBE_START_EARLIEST);
  command.set_subscriptions_max(10);
  write(kCoreGroup, envelope("topics.subscribe", command.SerializeAsString()),
        [this](const Result<machine::Applied>& result, int64_t) {
          if (result) pull();
          else subscribe();
        });
}

void SubscriptionClient::pull() {
  v1::PullEventsRequest request;
  request.set_subscription(std::string(kSubscription));
  request.set_max_events(kPulledMax);
  ask_subscriptions("PullEvents", request.SerializeAsString(),
                    [this](const Result<machine::Applied>& result, int64_t asked_us) {
                      if (result) take(result->response, asked_us);
                      after_us(below(cluster_.healed() ? 20'000 : 50'000), [this] { pull(); });
                    });
}

void SubscriptionClient::take(const std::string& answer, int64_t asked_us) {
  v1::PullEventsResponse pulled;
  if (!pulled.ParseFromString(answer))
    return cluster_.checkers().violations.add("subscriptions", name() + ": no answer");
  for (const auto& delivery : pulled.deliveries()) {
    const v1::Event& event = delivery.event();
    cluster_.checkers().subscriptions.delivered({event.topic(), event.partition()}, event.offset(), asked_us);
  }
  if (pulled.deliveries().empty() || (!cluster_.healed() && chance(0.05))) return;
  if (!cluster_.healed() && chance(0.1)) give_back(pulled.deliveries(0).ack_id());
  else confirm(pulled);
}

void SubscriptionClient::confirm(const v1::PullEventsResponse& pulled) {
  v1::AckEventsRequest request;
  request.set_subscription(std::string(kSubscription));
  for (const auto& delivery : pulled.deliveries()) request.add_ack_ids(delivery.ack_id());
  ask_subscriptions(
      "AckEvents", request.SerializeAsString(), [this, pulled](const Result<machine::Applied>& result, int64_t) {
        v1::AckEventsResponse response;
        if (!result || !response.ParseFromString(result->response)) return;
        const std::set<std::string> expired(response.expired_ack_ids().begin(), response.expired_ack_ids().end());
        for (const auto& delivery : pulled.deliveries()) {
          if (expired.contains(delivery.ack_id())) continue;
          const v1::Event& event = delivery.event();
          cluster_.checkers().subscriptions.confirmed({event.topic(), event.partition()}, event.offset(),
                                                      cluster_.now_us());
        }
      });
}

void SubscriptionClient::give_back(const std::string& ack_id) {
  v1::NackEventsRequest request;
  request.set_subscription(std::string(kSubscription));
  request.add_ack_ids(ack_id);
  ask_subscriptions("NackEvents", request.SerializeAsString(), [](const Result<machine::Applied>&, int64_t) {});
}

}  // namespace uccp::sim
