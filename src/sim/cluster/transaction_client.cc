#include "sim/cluster/transaction_client.h"

#include <iterator>

#include "call/contract.h"
#include "services/events/transaction_rows.h"
#include "sim/cluster/event_client.h"

namespace uccp::sim {
namespace {

constexpr std::string_view kSubscription = "processors";
constexpr int64_t kDeadlineMs = 400;
constexpr int32_t kPulledMax = 20;

}  // namespace

TransactionClient::TransactionClient(SimCluster& cluster, size_t number)
    : SimClient(cluster, "processor-" + std::to_string(number)) {}

void TransactionClient::start() {
  after_us(below(50'000), [this] { make_topic(0); });
}

// All clients make them; one of them is first.
void TransactionClient::make_topic(size_t number) {
  if (number == std::size(kSimOutputTopics)) return subscribe();
  v1::CreateTopicRequest request;
  request.mutable_topic()->set_name(std::string(kSimOutputTopics[number]));
  request.mutable_topic()->set_partitions(kSimPartitions);
  ask({.method = call::Contract::get().find("uccp.v1.EventBus/CreateTopic"),
       .request = request.SerializeAsString(),
       .deadline_ms = kDeadlineMs},
      [this, number](const Result<machine::Applied>& result, int64_t) {
        const bool made = result || result.error().code() == Code::kAlreadyExists;
        make_topic(made ? number + 1 : number);
      });
}

void TransactionClient::subscribe() {
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

void TransactionClient::next() {
  after_us(below(cluster_.healed() ? 5'000 : 20'000), [this] { pull(); });
}

void TransactionClient::pull() {
  v1::PullEventsRequest request;
  request.set_subscription(std::string(kSubscription));
  request.set_max_events(kPulledMax);
  ask_subscriptions("PullEvents", request.SerializeAsString(), [this](const Result<machine::Applied>& result, int64_t) {
    v1::PullEventsResponse pulled;
    if (!result || !pulled.ParseFromString(result->response) || pulled.deliveries().empty()) return next();
    begin(std::move(pulled));
  });
}

void TransactionClient::ask_until(const char* rpc, std::string request, std::string request_id,
                                  std::function<void(const Result<machine::Applied>&)> done) {
  ServiceCall call{.method = call::Contract::get().find("uccp.v1.EventBus/" + std::string(rpc)),
                   .request = request,
                   .request_id = request_id,
                   .deadline_ms = kDeadlineMs};
  ask_leader(events::kTransactionGroup, std::move(call),
             [this, rpc, request, request_id, done](const Result<machine::Applied>& result, int64_t) {
               if (!result && result.error().code() == Code::kDeadline) {
                 return ask_until(rpc, request, request_id, done);
               }
               done(result);
             });
}

void TransactionClient::begin(v1::PullEventsResponse input) {
  v1::BeginTransactionRequest request;
  request.set_producer_id(name());
  // Sometimes as if it had started again.
  request.set_producer_epoch(forgot_ || chance(0.1) ? 0 : epoch_);
  request.mutable_timeout()->set_seconds(2);
  ask_until("BeginTransaction", request.SerializeAsString(), "b" + std::to_string(++requests_),
            [this, input = std::move(input)](const Result<machine::Applied>& result) {
              v1::Transaction transaction;
              if (!result || !transaction.ParseFromString(result->response)) {
                cluster_.checkers().violations.add("transactions",
                                                   name() + " cannot begin: " + result.error().to_string());
                return;
              }
              forgot_ = false;
              epoch_ = transaction.producer_epoch();
              const size_t checked = cluster_.checkers().transactions.begun(name() + " " + transaction.id());
              publish({.checked = checked, .id = transaction.id(), .input = input}, 0);
            });
}

void TransactionClient::publish(Work work, size_t topic) {
  if (topic == std::size(kSimOutputTopics)) return confirm(std::move(work));
  const std::string to(kSimOutputTopics[topic]);
  v1::PublishRequest request;
  request.set_topic(to);
  request.set_transaction_id(work.id);
  for (const auto& delivery : work.input.deliveries()) {
    v1::Event& event = *request.add_events();
    event.set_key(name());
    event.set_text(name() + "#" + std::to_string(++numbers_));
    const v1::Event& input = delivery.event();
    cluster_.checkers().transactions.publishes(work.checked, to, event.text(), {input.topic(), input.partition()},
                                               input.offset());
  }
  ask_until("Publish", request.SerializeAsString(), "p" + std::to_string(++requests_),
            [this, work = std::move(work), topic, to](const Result<machine::Applied>& result) {
              if (!result) return give_up(work, result.error());
              cluster_.checkers().transactions.stored(work.checked, to);
              publish(work, topic + 1);
            });
}

void TransactionClient::confirm(Work work) {
  v1::AckEventsRequest request;
  request.set_subscription(std::string(kSubscription));
  request.set_transaction_id(work.id);
  for (const auto& delivery : work.input.deliveries()) request.add_ack_ids(delivery.ack_id());
  ask_subscriptions("AckEvents", request.SerializeAsString(),
                    [this, work = std::move(work)](const Result<machine::Applied>& result, int64_t) {
                      // Whether it was confirmed or not: who does not know it must not commit.
                      if (!result) return end(work, false);
                      if (!cluster_.healed() && chance(0.05)) {
                        forgot_ = true;
                        return next();
                      }
                      end(work, cluster_.healed() || chance(0.85));
                    });
}

void TransactionClient::end(Work work, bool commit) {
  if (commit) cluster_.checkers().transactions.commits(work.checked);
  v1::CommitTransactionRequest request;  // and that of the other one is like it
  request.set_id(work.id);
  ask_until(commit ? "CommitTransaction" : "AbortTransaction", request.SerializeAsString(), "",
            [this, work = std::move(work), commit](const Result<machine::Applied>& result) {
              if (!result) return give_up(work, result.error());
              cluster_.checkers().transactions.ended(work.checked, commit);
              next();
            });
}

void TransactionClient::give_up(const Work& work, const Status& why) {
  if (why.reason() == "TRANSACTION_EXPIRED" || why.reason() == "TRANSACTION_ABORTED") {
    cluster_.checkers().transactions.ended(work.checked, false);
    return next();
  }
  if (why.reason() == "TRANSACTION_ENDED") return end(work, false);
  cluster_.checkers().violations.add("transactions", name() + ": " + why.to_string());
}

}  // namespace uccp::sim
