#include "node/change_hub.h"

#include <algorithm>

#include "base/limits.h"
#include "machine/machine.h"
#include "machine/planted.h"

namespace uccp::node {
namespace {

constexpr size_t kBacklogChunk = 1000;

}  // namespace

struct ChangeHub::Subscription {
  Subscription(machine::WatchFilter f, std::shared_ptr<Interest> i) : filter(std::move(f)), interest(std::move(i)) {
    interest->add({filter.group, filter.topic});
  }
  ~Subscription() { interest->remove({filter.group, filter.topic}); }

  const machine::WatchFilter filter;
  const std::shared_ptr<Interest> interest;
  LogIndex delivered;  // everything up to here was handed over
  machine::Watcher::OnChange on_change;
  machine::Watcher::OnEnd on_end;
  std::atomic<bool> cancelled{false};
  bool live = false;
};

namespace {

// Cancels when the last holder lets go.
template <typename Subscription>
class Handle final : public machine::Watch {
 public:
  explicit Handle(std::shared_ptr<Subscription> s) : subscription_(std::move(s)) {}
  ~Handle() override { subscription_->cancelled.store(true); }

 private:
  std::shared_ptr<Subscription> subscription_;
};

}  // namespace

void ChangeHub::Interest::add(const Topic& topic) {
  std::lock_guard lock(mutex_);
  ++watches_[topic];
}

void ChangeHub::Interest::remove(const Topic& topic) {
  std::lock_guard lock(mutex_);
  const auto it = watches_.find(topic);
  if (--it->second == 0) watches_.erase(it);
}

void ChangeHub::Interest::filter(GroupId group, std::vector<machine::Change>& changes) const {
  if (changes.empty()) return;
  std::lock_guard lock(mutex_);
  std::erase_if(changes, [&](const machine::Change& change) { return !watches_.contains({group, change.topic}); });
}

ChangeHub::ChangeHub(Executor& executor, State state, MetricsRegistry& metrics)
    : executor_(executor),
      state_(std::move(state)),
      watchers_(metrics.gauge("uccp_watchers", "Watches open on this node")) {}

std::shared_ptr<machine::Watch> ChangeHub::watch(const machine::WatchFilter& filter, LogIndex since,
                                                 machine::Watcher::OnChange on_change, machine::Watcher::OnEnd on_end) {
  // From here on publish() counts with it. What was published before is in the state that it begins with.
  auto subscription = std::make_shared<Subscription>(filter, interest_);
  subscription->delivered = since;
  subscription->on_change = std::move(on_change);
  subscription->on_end = std::move(on_end);
  executor_.post([this, subscription] { start(subscription); });
  return std::make_shared<Handle<Subscription>>(subscription);
}

void ChangeHub::start(std::shared_ptr<Subscription> subscription) {
  if (closed_) {
    return subscription->on_end(Status(Code::kUnavailable, "SHUTTING_DOWN", "this node is shutting down"));
  }
  if (watchers_.value() >= static_cast<double>(limits::kWatchersMax)) {
    return subscription->on_end(Status(Code::kExhausted, "WATCHERS_EXHAUSTED",
                                       std::to_string(limits::kWatchersMax) + " watches are open on this node"));
  }
  watchers_.add(1);
  subscriptions_[{subscription->filter.group, subscription->filter.topic}].push_back(subscription);
  deliver_backlog(subscription);
}

// Goes through the backlog in chunks, letting other work in between.
void ChangeHub::deliver_backlog(const std::shared_ptr<Subscription>& subscription) {
  if (subscription->cancelled.load() || subscription->live) return;
  if (subscription->filter.live_only) {
    subscription->live = true;
    return;
  }
  const machine::GroupView state = state_(subscription->filter.group);
  auto changes = machine::read_changes(state, subscription->delivered, kBacklogChunk);
  if (!changes) return end(subscription, changes.error());
  // Never cut inside an index: read_changes goes on to the end of the last one.
  const bool whole = changes->size() < kBacklogChunk;
  for (const machine::Change& change : *changes) {
    if (matches(*subscription, change)) deliver(subscription, change);
  }
  if (!changes->empty()) subscription->delivered = changes->back().index;
  if (!whole) return executor_.post([this, subscription] { deliver_backlog(subscription); });
  subscription->delivered = std::max(subscription->delivered, state.applied());
  subscription->live = true;
}

bool ChangeHub::matches(const Subscription& s, const machine::Change& change) {
  return change.topic == s.filter.topic && (s.filter.tenant.empty() || change.scope.tenant == s.filter.tenant) &&
         (s.filter.name_space.empty() || change.scope.name_space == s.filter.name_space);
}

void ChangeHub::deliver(const std::shared_ptr<Subscription>& subscription, const machine::Change& change) {
  if (subscription->cancelled.load()) return;
  if (!subscription->on_change(change)) subscription->cancelled.store(true);
}

void ChangeHub::publish(GroupId group, std::vector<machine::Change> changes) {
  interest_->filter(group, changes);
  if (changes.empty()) return;
  executor_.post([this, group, changes = std::move(changes)] {
    for (const machine::Change& change : changes) {
      const auto it = subscriptions_.find({group, change.topic});
      if (it == subscriptions_.end()) continue;
      if (machine::planted_bug("watch_gap") && change.index.value % 89 == 0) continue;
      auto& list = it->second;
      std::erase_if(list, [&](const auto& s) {
        if (s->cancelled.load()) watchers_.add(-1);
        return s->cancelled.load();
      });
      for (const auto& subscription : list) {
        if (subscription->live && change.index > subscription->delivered && matches(*subscription, change)) {
          deliver(subscription, change);
        }
      }
    }
    published_[group] = changes.back().index;
  });
}

void ChangeHub::resync(GroupId group) {
  executor_.post([this, group] {
    for (auto it = subscriptions_.lower_bound({group, ""}); it != subscriptions_.end() && it->first.first == group;
         ++it) {
      const auto list = it->second;
      for (const auto& subscription : list) {
        if (!subscription->live) continue;
        if (subscription->filter.live_only) {
          end(subscription, Status(Code::kFailedPrecondition, "CURSOR_COMPACTED",
                                   "the state was replaced; look at it and watch anew"));
          continue;
        }
        subscription->delivered = std::max(subscription->delivered, published_[group]);
        subscription->live = false;
        deliver_backlog(subscription);
      }
    }
  });
}

void ChangeHub::end(const std::shared_ptr<Subscription>& subscription, Status status) {
  if (!subscription->cancelled.exchange(true)) subscription->on_end(std::move(status));
}

void ChangeHub::close(Status status) {
  executor_.post([this, status = std::move(status)] {
    closed_ = true;
    for (auto& [key, list] : subscriptions_) {
      for (const auto& subscription : list) end(subscription, status);
    }
    subscriptions_.clear();
    watchers_.set(0);
  });
}

}  // namespace uccp::node
