#include "sim/cluster/watch_client.h"

#include "sim/cluster/service_client.h"

namespace uccp::sim {

WatchClient::WatchClient(SimCluster& cluster, size_t number, GroupId group, std::string topic)
    : SimClient(cluster, "watch-" + std::to_string(number)), group_(group), topic_(std::move(topic)) {}

void WatchClient::start() { poll(); }

void WatchClient::poll() {
  SimNode& node = cluster_.node(0);
  if (node.running() && node.generation() != generation_) subscribe(cursor_);
  else if (node.running() && !cluster_.healed() && chance(0.005))
    subscribe(LogIndex(static_cast<uint64_t>(below(static_cast<int64_t>(cursor_.value) + 1))));
  after_us(20'000 + below(20'000), [this] { poll(); });
}

void WatchClient::subscribe(LogIndex since) {
  watch_.reset();
  generation_ = cluster_.node(0).generation();
  cursor_ = since;
  const size_t subscription = subscription_ = cluster_.checkers().watches.subscribed(topic_, since);
  watch_ = cluster_.node(0).node().watch(
      {.group = group_, .topic = topic_}, since,
      [this, subscription](const machine::Change& change) {
        deliver(subscription, change);
        return true;
      },
      [](const Status&) {});
}

void WatchClient::deliver(size_t subscription, const machine::Change& change) {
  cluster_.checkers().watches.delivered(subscription, {change.index, change.sequence});
  // A change is acknowledged by the next index: what came of this one may be cut by a crash.
  cursor_ = change.index.prev();
  if (topic_ != discovery::kTopic) return;
  discovery::ServiceRow row;
  if (!row.ParseFromString(change.payload)) return;
  const auto kind = static_cast<discovery::ChangeKind>(change.kind);
  if (kind == discovery::ChangeKind::kExpired) {
    cluster_.checkers().ttl.expired(lease_name(row.lease()), cluster_.now_us());
  }
}

}  // namespace uccp::sim
