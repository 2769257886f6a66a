#include "sim/cluster/watch_client.h"

#include "services/discovery/discovery_state.h"
#include "services/elections/elections_state.h"
#include "services/locks/locks_state.h"
#include "sim/cluster/service_client.h"

namespace uccp::sim {

WatchClient::WatchClient(SimCluster& cluster, size_t number, GroupId group, std::string topic)
    : SimClient(cluster, "watch-" + std::to_string(number)), group_(group), topic_(std::move(topic)) {}

void WatchClient::start() { poll(); }

void WatchClient::poll() {
  const bool lost = node_ == nullptr || !node_->running() || node_->generation() != generation_;
  if (lost) subscribe(cursor_, cluster_.any_place(random_));
  else if (!cluster_.healed() && chance(0.01)) {
    subscribe(LogIndex(static_cast<uint64_t>(below(static_cast<int64_t>(cursor_.value) + 1))),
              cluster_.any_place(random_));
  }
  after_us(20'000 + below(20'000), [this] { poll(); });
}

void WatchClient::move_to(size_t place) { subscribe(cursor_, place); }

void WatchClient::subscribe(LogIndex since, size_t place) {
  if (!cluster_.running(place)) return;
  watch_.reset();
  node_ = &cluster_.node(place);
  generation_ = node_->generation();
  cursor_ = since;
  const size_t subscription = subscription_ = cluster_.checkers().watches.subscribed(topic_, since);
  watch_ = node_->node().watch(
      {.group = group_, .topic = topic_}, since,
      [this, subscription](const machine::Change& change) {
        deliver(subscription, change);
        return true;
      },
      [this, subscription](const Status& status) {
        if (cluster_.tracing()) cluster_.note(name() + " ends: " + status.to_string());
        // Overtaken by a snapshot: what came in between was not kept for this node to tell.
        if (subscription == subscription_) generation_ = 0;
      });
}

void WatchClient::deliver(size_t subscription, const machine::Change& change) {
  cluster_.checkers().watches.delivered(subscription, {change.index, change.sequence});
  // A change is acknowledged by the next index: what came of this one may be cut by a crash.
  cursor_ = change.index.prev();
  if (topic_ == discovery::kTopic) note_service(change);
  if (topic_ == locks::kTopic) note_permit(change);
  if (topic_ == elections::kTopic) note_election(change);
}

void WatchClient::note_service(const machine::Change& change) {
  discovery::ServiceRow row;
  if (!row.ParseFromString(change.payload)) return;
  if (static_cast<discovery::ChangeKind>(change.kind) == discovery::ChangeKind::kExpired) {
    cluster_.checkers().ttl.expired(lease_name(row.lease()), cluster_.now_us());
  }
}

void WatchClient::note_permit(const machine::Change& change) {
  if (static_cast<locks::ChangeKind>(change.kind) != locks::ChangeKind::kAcquired) return;
  internal::v1::PermitChange permit;
  if (!permit.ParseFromString(change.payload)) return;
  const auto position = change.index.value << 16 | change.sequence;
  cluster_.checkers().holds.granted("permits", position, permit.holder().fencing_token());
  if (permit.holder().waiter() != 0) {
    cluster_.checkers().queues.served(permit.row().name(), position, permit.holder().waiter());
  }
}

void WatchClient::note_election(const machine::Change& change) {
  if (static_cast<elections::ChangeKind>(change.kind) != elections::ChangeKind::kElected) return;
  internal::v1::ElectionResult result;
  if (!result.ParseFromString(change.payload) || result.row().history().empty()) return;
  const auto& term = result.row().history(0);
  const uint64_t position = change.index.value << 16 | change.sequence;
  cluster_.checkers().holds.granted("elections", position, term.fencing_token());
  cluster_.checkers().terms.began(position, term.term(), term.candidate_id());
}

}  // namespace uccp::sim
