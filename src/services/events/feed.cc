#include "services/events/feed.h"

#include "base/log.h"
#include "services/events/bus_state.h"

namespace uccp::events {

using machine::Change;

Feed::Feed(machine::Watcher& watcher, Executor& events, uint32_t groups)
    : watcher_(watcher), events_(events), groups_(groups) {}

FeedListener::~FeedListener() {
  if (feed_ != nullptr) feed_->remove(this);
}

Feed::~Feed() {
  for (const auto& [number, listener] : listeners_) listener->feed_ = nullptr;
}

void Feed::start() {
  events_.post([this] { watch_topics(); });
}

void Feed::watch_group(GroupId group) {
  watches_[group] = watcher_.watch(
      {.group = group, .topic = std::string(kBusTopic), .live_only = true}, LogIndex(0),
      [this, group](const Change& change) { return on_change(group, change); },
      [this, group](const Status& status) {
        // Not from within the hub that calls.
        events_.post([this, group, status] { on_lost(group, status); });
      });
}

void Feed::watch_topics() {
  watches_[kCoreGroup] = watcher_.watch(
      {.group = kCoreGroup, .topic = std::string(kTopicChanges), .live_only = true}, LogIndex(0),
      [this](const Change& change) { return on_topic(change); },
      [this](const Status& status) { events_.post([this, status] { on_lost(kCoreGroup, status); }); });
}

void Feed::on_lost(GroupId group, const Status& status) {
  const Listeners all = listeners_;
  if (status.code() == Code::kUnavailable) {
    watches_.erase(group);
    for (const auto& [number, listener] : all) {
      if (listeners_.contains(number)) listener->on_stop(status);
    }
    return;
  }
  if (group == kCoreGroup) watch_topics();
  else if (watches_.contains(group)) watch_group(group);
  tell_gap(group);
}

void Feed::tell_gap(GroupId group) {
  const Listeners all = listeners_;
  for (const auto& [number, listener] : all) {
    if (listeners_.contains(number)) listener->on_gap(group);
  }
}

bool Feed::on_change(GroupId group, const Change& change) {
  const PartitionId id = decode_partition_key(change.key);
  const auto readers = readers_.find({group, id});
  if (readers == readers_.end()) {
    if (!pattern_readers_.empty() && id.topic > topics_known_) tell_gap(group);
    return true;
  }
  if (change.kind == kHeldChange) {
    const Listeners all = readers->second;
    for (const auto& [number, listener] : all) {
      if (listeners_.contains(number)) listener->on_released(group);
    }
    return true;
  }
  const auto batch = decode_notice(group, id, change.payload);
  if (!batch) {
    log::error("a batch of events cannot be read", {{"group", group.value}, {"why", batch.error().to_string()}});
    return true;
  }
  const Listeners all = readers->second;
  for (const auto& [number, listener] : all) {
    if (listeners_.contains(number)) listener->on_batch(*batch);
  }
  return true;
}

bool Feed::on_topic(const Change& change) {
  TopicRow topic;
  if (!topic.ParseFromString(change.payload)) return true;
  topics_known_ = std::max(topics_known_, topic.number());
  const Listeners all = listeners_;
  for (const auto& [number, listener] : all) {
    if (listeners_.contains(number)) listener->on_topic(change.scope, topic, static_cast<TopicChange>(change.kind));
  }
  return true;
}

void Feed::add(FeedListener* listener) {
  if (listener->number_ == 0) listener->number_ = ++last_number_;
  listener->feed_ = this;
  listeners_[listener->number_] = listener;
}

void Feed::remove(FeedListener* listener) {
  listener->feed_ = nullptr;
  listeners_.erase(listener->number_);
  pattern_readers_.erase(listener->number_);
  for (auto at = followed_.begin(); at != followed_.end();) {
    at->second.listeners.erase(listener->number_);
    at = at->second.listeners.empty() ? followed_.erase(at) : std::next(at);
  }
}

void Feed::knows(FeedListener* listener, uint64_t topic) {
  pattern_readers_.insert(listener->number_);
  topics_known_ = std::max(topics_known_, topic);
}

void Feed::follow(FeedListener* listener, GroupId group, const std::string& topic) {
  Followed& followed = followed_[{group, topic}];
  followed.listeners[listener->number_] = listener;
  if (followed.watch == nullptr) watch_changes(group, topic);
}

// The changes themselves are read from the state, which is never older than what is told.
void Feed::watch_changes(GroupId group, const std::string& topic) {
  followed_[{group, topic}].watch = watcher_.watch(
      {.group = group, .topic = topic, .live_only = true}, LogIndex(0),
      [this, group, topic](const Change&) {
        tell_changes(group, topic);
        return true;
      },
      [this, group, topic](const Status& status) {
        events_.post([this, group, topic, status] {
          // The node stops: listeners hear that from their groups.
          if (status.code() == Code::kUnavailable || !followed_.contains({group, topic})) return;
          watch_changes(group, topic);
          tell_changes(group, topic);
        });
      });
}

void Feed::tell_changes(GroupId group, const std::string& topic) {
  const auto followed = followed_.find({group, topic});
  if (followed == followed_.end()) return;
  const Listeners all = followed->second.listeners;
  for (const auto& [number, listener] : all) {
    if (listeners_.contains(number)) listener->on_changes(group);
  }
}

void Feed::read(FeedListener* listener, GroupId group, PartitionId id) {
  readers_[{group, id}][listener->number_] = listener;
  if (!watches_.contains(group)) watch_group(group);
}

void Feed::unread(FeedListener* listener, GroupId group, PartitionId id) {
  const auto readers = readers_.find({group, id});
  if (readers == readers_.end()) return;
  readers->second.erase(listener->number_);
  if (!readers->second.empty()) return;
  readers_.erase(readers);
  const auto other = readers_.lower_bound({group, PartitionId{}});
  if (other == readers_.end() || other->first.first != group) watches_.erase(group);
}

}  // namespace uccp::events
